"""Results -> what is printed: tables for people, aligned text for pipes, JSON, CSV and Markdown for programs."""
