"""llama.cpp: buffers for the whole context, taken at start: weights as in the file, cells, recurrent states, a compute buffer.

Layers go to the GPUs in proportion to their memory, the head after them to the last; the token table stays with the host, and
a tied one has a copy as head (``llama-model.cpp``). Cells are shared by all sequences (a unified cache), rounded up; layers
with a window keep its cells for each sequence and those of one batch. States are kept in fp32 for each sequence.

The compute buffer is what the graph's allocator needs at its widest: the logits, or a layer with the attention mask. It is
modelled on logged sizes.
"""

from collections import Counter
from functools import lru_cache
from typing import Any, NamedTuple

from llmcalc.engines.demand import MOST_TOKENS
from llmcalc.engines.fit import Load, largest
from llmcalc.engines.mixes import in_tower
from llmcalc.engines.runtime_model import Entry, Known, text_products
from llmcalc.engines.runtimes import Case, element_bytes, known
from llmcalc.engines.weights import format_of, tensor_bytes
from llmcalc.errors import UsageError
from llmcalc.quantity import Dim

HOST = -1


class Weights(NamedTuple):
    """Bytes by where they stand: read by look-up, in each layer, and with the output."""

    table: int
    layers: list[int]
    output: int


class Device(NamedTuple):
    """What stands on one GPU, or with the host (``HOST``)."""

    number: int
    model_bytes: int
    kv_bytes: int
    state_bytes: int
    compute_bytes: int
    layers: int


@lru_cache(maxsize=8)
def text_weights(model: Known) -> Weights:
    """The model file's weights; a tower for images is a file of its own, and not in it."""
    blueprint, first, count = model.blueprint, {}, 0
    for stack in blueprint.stacks:
        first[stack.name] = count
        count += stack.depth
    layers, table, output, head = [0] * count, 0, 0, False
    for share in model.shares:
        weight = share.weight
        if in_tower(weight):
            continue
        one = int(weight.copies) * int(tensor_bytes(weight.shape, format_of(share, model.method, model.dtype)))
        if share.layers:
            for layer in share.layers:
                layers[first[weight.stack] + layer] += one
        elif weight.last or weight.part == "lm_head":
            output += one
            head = head or (weight.part == "lm_head" and weight.kind == "matrix")
        else:
            table += one
    if not head and model.vocabulary:
        output += sum(
            int(tensor_bytes(share.weight.shape, format_of(share, model.method, model.dtype)))
            for share in model.shares
            if share.weight.role == "embedding" and share.weight.stack == blueprint.stacks[-1].name
        )
    return Weights(table, layers, output)


def placed(layers: int, gpus: int, gpu_layers: int) -> list[int]:
    """The GPU of each layer and, last, of the output; ``HOST`` for those that are not offloaded, which are the first."""
    active = min(gpu_layers, layers + 1)
    start = layers + 1 - active
    return [HOST if i < start or not gpus else min(gpus - 1, _slot(i - start, active, gpus)) for i in range(layers + 1)]


def _slot(index: int, count: int, gpus: int) -> int:
    """The first GPU whose share, summed up, is above index / count."""
    return next((gpu for gpu in range(gpus) if index * gpus < (gpu + 1) * count), gpus - 1)


class LlamaCppPlan:
    """llama.cpp on so many GPUs. Raises UsageError for kinds of parallelism that it has not, NoAnswer for unknown caches."""

    replicas = 1

    def __init__(self, case: Case) -> None:
        if (case.split.tp, case.split.ep, case.split.dp) != (1, 1, 1):
            raise UsageError("--runtime llama.cpp spreads layers over --gpus; --tp, --ep and --dp are not for it")
        self.case, self.rules, self.settings = case, case.runtime.rules, case.settings
        self.model = known(case)
        self.blueprint = self.model.blueprint
        self.gpus = case.split.pp
        self.weights = text_weights(self.model)
        self.entries = self.model.entries
        count = len(self.entries)
        self.asked = count + 1 if self.settings.gpu_layers is None else self.settings.gpu_layers
        self.places = placed(count, self.gpus, self.asked)
        self.batch_tokens = self.settings.prompt_tokens or self.rules.prompt_tokens
        self.available = int(case.card.bytes * (1.0 if self.settings.utilization is None else self.settings.utilization))
        places = {*self.places, *range(self.gpus), HOST}
        self._by_place = {place: self._grouped(place) for place in places}
        self._model_bytes = {place: self._weight_bytes(place) for place in places}
        self._widest = self._widest_elements()
        self.windows = {entry.window for layer in self.entries for entry in layer if entry.kind in ("kv", "latent")}
        attends = (op for op in self.blueprint.ops if op.kind == "attention" and op.part == "attention" and not op.cross)
        self.scored = {(op.heads, op.qk, op.window) for op in attends if op.v > 1}
        # Where the weights are too large for the GPUs, experts stay with the host, and there is no pipeline.
        self.resident = sum(self.weights.layers) + self.weights.output <= self.gpus * case.card.bytes

    def _grouped(self, place: int) -> list[tuple[Entry, int]]:
        """What the layers of a place cache, alike ones once, with how many there are."""
        mine = [e for at, layer in zip(self.places, self.entries, strict=False) if at == place for e in layer]
        return list(Counter(mine).items())

    def _weight_bytes(self, place: int) -> int:
        """The layers' weights at a place, and the output's."""
        layers = sum(size for at, size in zip(self.places, self.weights.layers, strict=False) if at == place)
        return layers + (self.weights.output if self.places[-1] == place else 0)

    def _round(self, cells: int) -> int:
        return -(-cells // self.rules.block) * self.rules.block

    def cells(self, window: int | None, context: int, batch: int) -> int:
        """Cells of a layer: of all sequences together, or their windows and one batch."""
        whole = context * batch
        return self._round(whole if window is None else min(whole, window * batch + self.batch_tokens))

    def _cell_bytes(self, entry: Entry) -> int:
        keys, values = self.settings.kv_dtype, self.settings.value_dtype or self.settings.kv_dtype
        if entry.kind == "latent":
            if self.rules.latent == "expanded":
                return element_bytes(entry.expanded[0], keys) + element_bytes(entry.expanded[1], values)
            return element_bytes(entry.keys, keys) + (element_bytes(entry.values, values) if self.rules.latent != "latent" else 0)
        return element_bytes(entry.keys, keys) + element_bytes(entry.values, values)

    def cached(self, place: int, context: int, batch: int) -> tuple[int, int]:
        """Bytes of cells and of states on a GPU."""
        cells = states = 0
        for entry, layers in self._by_place[place]:
            if entry.kind == "state":
                states += layers * 4 * entry.keys * batch
            else:
                read = self.blueprint.encoder_tokens(self.settings.encoder_context, context)
                tokens = read if entry.per == "encoder_token" else context
                cells += layers * self._cell_bytes(entry) * self.cells(entry.window, tokens, batch)
        return cells, states

    def _widest_elements(self) -> int:
        """Elements of one token at the widest operation of a layer, with the residual.

        Of experts, what each wrote and the same weighted.
        """
        hidden, widest = self.model.hidden, 0
        for op in text_products(self.blueprint):
            inner, width, times = int(op.inner), int(op.width), int(op.repeats)
            if times == 1:
                widest = max(widest, inner + width)
            else:
                widest = max(widest, times * (inner + 2 * width if width == hidden else 2 * width))
        return hidden + widest

    def _attention(self, context: int, batch: int) -> tuple[int, int]:
        """Bytes of the masks on a GPU, and of scores with queries where flash attention is off."""
        masks = sum(self.cells(window, context, batch) for window in self.windows) * self.batch_tokens
        if self.settings.flash_attention:
            return self.rules.mask_bytes * masks, 0
        scores = max((heads * (self.cells(window, context, batch) + 2 * qk) for heads, qk, window in self.scored), default=0)
        return 4 * masks, 4 * self.batch_tokens * scores

    def compute_bytes(self, place: int, context: int, batch: int) -> int:
        """The compute buffer of a GPU; 0 where nothing runs on it.

        A batch's logits with the residual, or a layer with the masks. With no layer offloaded the GPU still multiplies large
        batches, by a copy of one matrix, of which the head is the largest. As a pipeline over GPUs, inputs have copies.
        """
        hidden = 4 * self.batch_tokens * self.model.hidden
        logits = 4 * self.batch_tokens * self.model.vocabulary + 2 * hidden
        masks, scores = self._attention(context, batch)
        working = scores + 2 * hidden if scores else 4 * self.batch_tokens * self._widest
        used = [at for at in range(self.gpus) if at in self.places]
        if not used:
            return self.weights.output + logits if place == 0 else 0
        if place not in used:
            return 0
        last = place == self.places[-1]
        if len(used) > 1 and self.asked > len(self.entries) and self.resident:
            copied = self.rules.copies * (masks + (hidden if place != used[0] or scores else 0))
            return copied + max(working, logits - hidden if last else 0)
        return max(masks + working, logits if last else 0)

    def host_bytes(self, context: int, batch: int) -> int:
        """Memory of the host: the table, layers that are not offloaded with their caches, and a batch's inputs."""
        held = self.weights.table + self._model_bytes[HOST]
        masks, _ = self._attention(context, batch)
        hidden = 4 * self.batch_tokens * self.model.hidden
        compute = masks + 2 * hidden
        if self.places[-1] == HOST:
            compute += 4 * self.batch_tokens * self.model.vocabulary
        return held + sum(self.cached(HOST, context, batch)) + compute

    def devices(self, context: int, batch: int) -> list[Device]:
        """What stands on each GPU."""
        found = []
        for gpu in range(self.gpus):
            cells, states = self.cached(gpu, context, batch)
            compute, layers = self.compute_bytes(gpu, context, batch), self.places[:-1].count(gpu)
            found.append(Device(gpu, self._model_bytes[gpu], cells, states, compute, layers))
        return found

    def loads(self, context: int, batch: int) -> list[Load]:
        """Bytes on each GPU."""
        kept = self.rules.process_bytes
        return [Load(d.model_bytes, d.kv_bytes + d.state_bytes, d.compute_bytes, kept) for d in self.devices(context, batch)]

    def formulas(self, context: int, batch: int, gpu: int) -> dict[str, Any]:
        """How the cache of a GPU comes about: layers, cells and bytes of one, and states of every sequence."""
        total: Any = 0
        for number, (entry, layers) in enumerate(self._by_place[gpu], 1):
            count, mark = Dim(layers, f"layers_{number}"), f"_{number}"
            if entry.kind == "state":
                total = total + count * 4 * Dim(entry.keys, f"state{mark}") * Dim(batch, "sequences")
            elif entry.per != "encoder_token":
                cells = Dim(self.cells(entry.window, context, batch), f"cells{mark}")
                total = total + count * cells * Dim(self._cell_bytes(entry), f"cell_bytes{mark}")
        return {"kv_bytes": total}

    def tokens(self, _context: int) -> int | None:
        """The longest single sequence that fits; None where the cache does not grow."""
        if not any(entry.kind != "state" and entry.window is None for layer in self.entries for entry in layer):
            return None

        def fits(tokens: int) -> bool:
            return all(load.required_bytes <= self.available for load in self.loads(tokens, 1))

        return largest(fits, MOST_TOKENS)
