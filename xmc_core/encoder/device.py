"""Where the encoder runs: device, number format, threads.

On CPU, work is cut into pieces that do not depend on the number of threads, and each piece runs on
one thread of `parallel.map_threads` with torch's own threads switched off. That gives the same
bytes on any number of cores, and it is faster: MiniLM, batches of 2,048 tokens, two cores of an
AMD EPYC: 192 texts of 32 tokens a second against 184 with torch's threads, and 354 against 107
when batches are small or another process wants a core.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from numpy.typing import NDArray
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from xmc_core.errors import ConfigError
from xmc_core.parallel import map_threads

Job = TypeVar("Job")
Result = TypeVar("Result")


def pick_device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def resolve_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The number format of matrix products, from `encoder.precision`; all else stays float32.

    On CPUs with AMX bf16 encodes 3.6 times as fast as float32 and trains 2.5 times as fast (MiniLM,
    texts of 32 tokens, one Sapphire Rapids core: 26,400 against 7,200 and 5,600 against 2,240
    tokens a second), with AVX-512's bf16 both 1.8 times (one Zen 4 core, EUR-Lex titles); on others
    it is emulated, and slower.

    Raises ConfigError for bf16 on a GPU that lacks it, where it would be emulated.
    """
    native = computes_bf16(device)
    if precision == "bf16" and device.type == "cuda" and not native:
        raise ConfigError(
            f"encoder.precision is bf16 but {torch.cuda.get_device_name(device)} has no bf16; "
            "set it to auto or fp32."
        )
    return (
        torch.bfloat16 if precision == "bf16" or (precision == "auto" and native) else torch.float32
    )


CPU_BF16 = ("amx_bf16", "avx512_bf16")
"""Units of a CPU, by torch's names, that multiply bf16 and that torch's products use."""


def computes_bf16(device: torch.device) -> bool:
    """Whether matrix products in bf16 run in hardware."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(unit, False) for unit in CPU_BF16)  # older torch cannot tell


OUT_OF_MEMORY = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""What errors of no class of their own say: of a CPU, and of the library of matrix products."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch says that memory ran out, on whatever device."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)
    )


def on_device(array: NDArray[Any], device: torch.device) -> torch.Tensor:
    """An array as a tensor there. A GPU takes it from pinned memory and goes on with what it is
    doing meanwhile."""
    tensor = torch.from_numpy(array)
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


@contextmanager
def autocast(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Matrix products in `dtype`. Without torch's cache of cast weights: threads would share it.
    While training weights are cast once a step instead, see `MasterWeights`."""
    mixed = dtype != torch.float32
    with torch.autocast(device.type, dtype if mixed else None, enabled=mixed, cache_enabled=False):
        yield


MASKED = "xmc_sdpa"
"""torch's fused attention by a name of our own, under which masks are taken as they are."""


def _whole_mask(*arguments: Any, **options: Any) -> Any:
    return sdpa_mask(*arguments, **{**options, "allow_is_bidirectional_skip": False})


AttentionInterface.register(MASKED, ALL_ATTENTION_FUNCTIONS["sdpa"])
AttentionMaskInterface.register(MASKED, _whole_mask)


def take_masks_unseen(model: Any) -> None:
    """Keep transformers from asking at every pass whether a mask hides anything: a GPU would be
    waited for. Who gives a mask knows, and gives none where it hides nothing."""
    if model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(MASKED)


class MasterWeights:
    """Float32 weights, for an optimizer to move or a file to keep, of modules that compute with
    copies of them in `dtype`.

    Casting once, instead of at every forward pass as autocast does, is worth a third of a training
    step on CPU (MiniLM, parts of 8 texts of 32 tokens: 5,300 against 3,500 tokens a second on a
    Sapphire Rapids core), and a tenth to a quarter of encoding. All but the weights of linear
    layers stays float32 in the modules too.
    """

    def __init__(self, modules: Iterable[torch.nn.Module], dtype: torch.dtype) -> None:
        products = [
            module.weight
            for root in modules
            for module in root.modules()
            if isinstance(module, torch.nn.Linear)
        ]
        self._pairs = [(weight, weight.data) for weight in products if weight.dtype != dtype]
        for weight, master in self._pairs:
            weight.data = master.to(dtype)
        self._master_of = {id(weight): master for weight, master in self._pairs}

    def of(self, parameters: Iterable[torch.nn.Parameter]) -> list[torch.Tensor]:
        """The float32 weights behind the modules' parameters."""
        return [self._master_of.get(id(p), p.detach()) for p in parameters]

    def publish(self) -> None:
        """Bring what the optimizer has done into the modules."""
        if self._pairs:
            weights, masters = ([*column] for column in zip(*self._pairs, strict=True))
            torch._foreach_copy_([weight.data for weight in weights], masters)

    def close(self) -> None:
        """Leave the modules with the float32 weights."""
        for weight, master in self._pairs:
            weight.data = master


def run_jobs(
    function: Callable[[Job], Result], jobs: Iterable[Job], device: torch.device, n_threads: int
) -> list[Result]:
    """Call `function` on every job: on CPU in threads of our own, on a GPU one after another."""
    if device.type != "cpu":
        return [function(job) for job in jobs]

    def alone(job: Job) -> Result:
        torch.set_num_threads(1)  # of the calling thread
        return function(job)

    before = torch.get_num_threads()
    try:
        return map_threads(alone, jobs, n_threads)
    finally:
        torch.set_num_threads(before)


LONG = 512
"""Texts of so many tokens are trained with the fused attention on CPU, too: two layers and one text
take as long there, .2 CPU seconds, and 30 MB instead of 79; at 2,048 tokens .9 s instead of 2.3,
and 108 MB instead of 876."""


@contextmanager
def training_attention(model: Any, device: torch.device, longest: int) -> Iterator[None]:
    """The attention to train a transformer with on texts of up to `longest` tokens.

    On CPU torch's fused kernel is slow backwards: a step of MiniLM (32 texts, bf16, one Sapphire
    Rapids core) spends 0.44 s in it at 32 tokens and 0.82 s at 64, against 0.28 s and 0.62 s with
    plain products. Those of transformers, without a look at the mask each time, take 5 % of a step
    less than torch's (0.79 against 0.83 s, Zen 4). Encoding keeps the fused kernel.
    """
    if device.type != "cpu":
        yield
        return
    fused = model.config._attn_implementation == "sdpa" and longest < LONG
    if fused:
        model.set_attn_implementation("eager")
    try:
        yield
    finally:
        if fused:
            model.set_attn_implementation("sdpa")
