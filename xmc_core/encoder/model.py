"""A transformer that turns texts into vectors of unit length."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor
from torch.utils._pytree import tree_map_only

from xmc_core.config import EncoderConfig
from xmc_core.encoder.batches import encoding_batches
from xmc_core.encoder.device import (
    autocast,
    is_out_of_memory,
    on_device,
    pick_device,
    resolve_dtype,
    run_jobs,
    take_masks_unseen,
)
from xmc_core.encoder.distributed import ALONE, World, is_sharded
from xmc_core.encoder.tokens import TokenStore, cut_to, largest_id, tokenize
from xmc_core.encoder.weights import resolve_encoder, sha256
from xmc_core.errors import ConfigError, EncoderError, StoreError
from xmc_core.persistence import read_store, write_store
from xmc_core.reporting import PROGRESS_SECONDS, SILENT, Reporter
from xmc_core.types import Halves, Indices

KIND = "text-encoder"

CPU_BATCH_TOKENS = 2048
"""On CPU no forward pass is larger, whatever encoder.batch_tokens says. Larger ones leave the
cache: MiniLM, fp32, one core of an AMD EPYC: 107 texts of 32 tokens a second up to 4,096 tokens
a pass, 95 at 8,192."""


@dataclass(frozen=True, slots=True, eq=False)
class TextEncoder:
    """Transformer, tokeniser, and how its token vectors become one vector a text."""

    model: torch.nn.Module
    tokenizer: Any
    pooling: str
    max_length: int
    device: torch.device
    components: Tensor | None = None
    """(hidden size, n_dims) float32: what `embed` multiplies vectors with, see components.py."""

    @classmethod
    def pretrained(cls, config: EncoderConfig, device: torch.device | None = None) -> "TextEncoder":
        """Load the encoder that `config.name` names; see `resolve_encoder` for where it is sought.

        Raises
        ------
        EncoderError
            If it is not on this machine, or its files are damaged or incomplete.
        ConfigError
            If encoder.max_length is more than it has positions for, encoder.frozen_layers leaves
            no layer, encoder.components are more than its dimensions, or it or the device cannot do
            what encoder.gradient_checkpointing or encoder.precision asks for.
        """
        resolve_dtype(config.precision, device or pick_device())
        folder = resolve_encoder(config.name)
        encoder = cls._open(folder, config.pooling, config.max_length, device)
        if config.max_length > (positions := encoder.positions):
            raise ConfigError(
                f"encoder.max_length is {config.max_length:,} but {config.name} has {positions:,} "
                "positions; lower it, or choose an encoder for longer texts."
            )
        if config.components > encoder.n_dims:
            raise ConfigError(
                f"encoder.components is {config.components:,} but {config.name} has "
                f"{encoder.n_dims:,} dimensions; lower it, or set 0 for all of them."
            )
        if config.frozen_layers >= max(len(encoder.layers), 1):
            raise ConfigError(
                f"encoder.frozen_layers is {config.frozen_layers} but {config.name} has "
                f"{len(encoder.layers)} layers; leave one to be trained, or set encoder.levels to "
                "0 for a frozen encoder."
            )
        if config.gradient_checkpointing and not encoder.recomputes:
            raise ConfigError(
                f"encoder.gradient_checkpointing is set but the {type(encoder.model).__name__} of "
                f"{config.name} cannot compute its layers anew; set it to false."
            )
        encoder.freeze(config.frozen_layers)
        return encoder

    @classmethod
    def _open(
        cls, folder: Path, pooling: str, max_length: int, device: torch.device | None
    ) -> "TextEncoder":
        device = device or pick_device()
        model, tokenizer = _read(folder, pooling)
        cut_to(max_length, tokenizer)
        # Dropout stays off while training too (eval mode): see finetune.py.
        model.to(device).eval()
        if device.type == "cuda":
            take_masks_unseen(model)
        encoder = cls(model, tokenizer, pooling, max_length, device)
        encoder._leave_out_pooler(folder)
        return encoder

    def _leave_out_pooler(self, folder: Path) -> None:
        """Where no one asks for a pooling layer: trained for another purpose, it costs time. Some
        kinds cannot do without; raises EncoderError for those that cannot encode a text at all."""
        model: Any = self.model
        pooler = getattr(model, "pooler", None)
        tries = [pooler] if pooler is None or self.pooling == "pooler" else [None, pooler]
        for number, kept in enumerate(tries, start=1):
            if pooler is not None:
                model.pooler = kept
            try:
                with torch.no_grad():
                    self._first_pass()
                return
            except Exception as error:  # whatever a model's code raises
                if number == len(tries):
                    raise EncoderError(
                        f"the {type(model).__name__} in {folder} cannot encode a text by itself "
                        f"({error}); choose an encoder such as BERT, RoBERTa or ModernBERT."
                    ) from error

    def _first_pass(self) -> Tensor:
        """The vector of a text of two tokens."""
        ids = torch.zeros((1, 2), dtype=torch.int64, device=self.device)
        return self.forward(ids, torch.ones_like(ids, dtype=torch.bool), torch.float32)

    @property
    def n_dims(self) -> int:
        """Length of a text's vector, as `embed` gives it."""
        if self.components is not None:
            return self.components.shape[1]
        return int(self.model.config.hidden_size)  # type: ignore[union-attr, arg-type]

    @property
    def layers(self) -> list[torch.nn.Module]:
        """The transformer's layers, from the bottom: its longest list of modules."""
        lists = [m for m in self.model.modules() if isinstance(m, torch.nn.ModuleList)]
        return list(max(lists, key=len, default=[]))

    @property
    def positions(self) -> int:
        """The most tokens that a text may have."""
        known = int(getattr(self.model.config, "max_position_embeddings", None) or 0)
        known = known if known > 0 else 2**31  # XLNet, whose positions are relative, says -1
        for name, module in self.model.named_modules():
            if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
                # RoBERTa's positions start behind the padding id.
                before = 0 if module.padding_idx is None else module.padding_idx + 1
                known = min(known, module.num_embeddings - before)
        return min(known, int(self.tokenizer.model_max_length))

    @property
    def recomputes(self) -> bool:
        """Whether it can do what `encoder.gradient_checkpointing` asks for."""
        return bool(getattr(self.model, "supports_gradient_checkpointing", False))

    def freeze(self, n_layers: int = 0) -> None:
        """Mark (by `requires_grad`) what fine-tuning leaves as pretrained: the table of word
        vectors, weights that the vectors do not depend on, and with `n_layers` as many layers from
        the bottom, and all below them."""
        table = self.model.get_input_embeddings().weight  # type: ignore[operator]
        weights = [w.requires_grad_() for w in self.model.parameters() if w is not table]
        table.requires_grad_(False)
        with _detached(self.layers[n_layers]) if n_layers else nullcontext():
            vector = self._first_pass()
        gradients = torch.autograd.grad(vector.sum(), weights, allow_unused=True)
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.requires_grad_(gradient is not None)

    def tokenize(
        self, texts: Sequence[str], report: Reporter = SILENT, folder: Path | None = None
    ) -> TokenStore:
        """Token ids of `texts`, each cut to max_length; in a file, with `folder`."""
        return tokenize(texts, self.tokenizer, self.max_length, report, folder)

    def vectors(
        self,
        tokens: TokenStore,
        rows: Indices,
        dtype: torch.dtype,
        multiple: int = 1,
        widest: int | None = None,
    ) -> Tensor:
        """(rows, hidden size) float32 unit vectors of some texts, padded as `TokenStore.padded`
        does."""
        ids, mask = tokens.padded(rows, multiple, widest)
        return self.forward(
            on_device(ids, self.device), on_device(mask, self.device), dtype, full=bool(mask.all())
        )

    def forward(
        self, ids: Tensor, mask: Tensor, dtype: torch.dtype, *, full: bool = False
    ) -> Tensor:
        """(texts, hidden size) float32 unit vectors of padded token ids and their mask; `full`: it
        is known to hide nothing.

        Inside the transformer matrix products run in `dtype`; pooling is float32.
        """
        with autocast(self.device, dtype):
            output = self.model(input_ids=ids, attention_mask=None if full else mask.long())
        if self.pooling == "pooler":
            return torch.nn.functional.normalize(output.pooler_output.float(), dim=1)
        hidden = output.last_hidden_state.float()
        if self.pooling == "first":
            pooled = hidden[:, 0] * mask[:, :1]  # 0 for a text without tokens, as its mean
        else:
            # The sum over the tokens: its mean points the same way.
            pooled = torch.einsum("btd,bt->bd", hidden, mask.float())
        return torch.nn.functional.normalize(pooled, dim=1)

    def in_components(self, vectors: Tensor) -> Tensor:
        """What `embed` makes of the transformer's vectors: as they are, or their components."""
        if self.components is None:
            return vectors
        return torch.nn.functional.normalize(vectors @ self.components, dim=1)

    def embed(
        self,
        texts: Sequence[str] | TokenStore,
        config: EncoderConfig,
        *,
        n_threads: int = -1,
        report: Reporter = SILENT,
        out: Halves | None = None,
        world: World = ALONE,
    ) -> Halves:
        """Encode texts, or what `tokenize` made of them.

        Of `config`, `batch_tokens` and `precision` are used. The result, (n_texts, n_dims) float16,
        has rows of unit length and is the same, bit for bit, on any number of CPU threads. 16 bits,
        as no component of a unit vector passes 1: they keep three digits more than bf16 would.

        With `out`, a memory-mapped file perhaps, rows are written there, batch by batch. Several
        processes encode a share each, and all see the result. A batch that memory does not hold is
        cut in two.
        """
        tokens = texts if isinstance(texts, TokenStore) else self.tokenize(texts, report)
        dtype = resolve_dtype(config.precision, self.device)
        limit = (
            min(config.batch_tokens, CPU_BATCH_TOKENS)
            if self.device.type == "cpu"
            else config.batch_tokens
        )
        embeddings = np.zeros((len(tokens), self.n_dims), np.float16) if out is None else out
        lengths = tokens.lengths
        batches = world.share(encoding_batches(lengths, limit))
        in_step = is_sharded(self.model)  # all processes take the same passes, one after another
        told = _Progress(report, len(tokens.ids) // world.size)

        def encoded(rows: Indices) -> Halves:
            try:
                with torch.no_grad():
                    vectors = self.in_components(self.vectors(tokens, rows, dtype))
                halves: Halves = vectors.half().cpu().numpy()
                return halves
            except (MemoryError, RuntimeError) as error:
                if len(rows) == 1 or in_step or not is_out_of_memory(error):
                    raise
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            return np.concatenate([encoded(half) for half in np.array_split(rows, 2)])

        def encode(job: tuple[Indices, bool]) -> None:
            rows, counts = job
            vectors = encoded(rows)
            if counts:
                embeddings[rows] = vectors
            told.add(int(lengths[rows].sum()))

        run_jobs(encode, batches, self.device, 1 if in_step else n_threads)
        if out is None and world.size > 1:  # a file is one for all; memory is each one's own
            total = torch.from_numpy(embeddings).to(self.device)
            world.add([total])
            embeddings = total.cpu().numpy()
        world.wait()
        return embeddings

    def save(self, folder: Path) -> None:
        """Write weights (safetensors), tokeniser and settings; equal content gives equal bytes."""
        folder.mkdir(parents=True, exist_ok=True)
        with _quiet():
            self.model.save_pretrained(folder)  # type: ignore[operator]
            self.tokenizer.save_pretrained(folder)
        files = {
            str(file.relative_to(folder)): sha256(file)
            for file in sorted(folder.rglob("*"))
            if file.is_file() and file.name != "manifest.json"
        }
        facts = {
            "pooling": self.pooling,
            "max_length": self.max_length,
            "dims": self.n_dims,
            "files": files,
        }
        arrays = {} if self.components is None else {"components": self.components.cpu().numpy()}
        write_store(folder, KIND, arrays=arrays, facts=facts)

    @classmethod
    def load(cls, folder: Path | str, device: torch.device | None = None) -> "TextEncoder":
        """Open what `save` wrote.

        Raises StoreError if a file is missing or altered, or the folder holds something else.
        """
        folder = Path(folder)
        store = read_store(folder, KIND)
        facts = store.facts
        for name, expected in facts["files"].items():
            if not (folder / name).exists():
                raise StoreError(
                    f"{folder / name} is missing; the folder is incomplete, restore it."
                )
            if sha256(folder / name) != expected:
                raise StoreError(
                    f"{folder / name} does not match its checksum; it was altered or damaged."
                )
        encoder = cls._open(folder, facts["pooling"], facts["max_length"], device)
        if "components" not in store.arrays:
            return encoder
        components = torch.from_numpy(np.array(store.arrays["components"]))
        return replace(encoder, components=components.to(encoder.device))


@contextmanager
def _detached(layer: torch.nn.Module) -> Iterator[None]:
    """No gradient passes through what `layer` is given. What lies below a layer has other names in
    each kind of transformer; this way the graph itself says it."""

    def cut(_: torch.nn.Module, *given: Any) -> Any:
        return tree_map_only(Tensor, Tensor.detach, given)

    hook = layer.register_forward_pre_hook(cut, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


class _Progress:
    """Counts tokens over threads and tells every few seconds."""

    def __init__(self, report: Reporter, total: int) -> None:
        self.report, self.total, self.done = report, total, 0
        self.began = self.told = time.monotonic()
        self.lock = threading.Lock()

    def add(self, tokens: int) -> None:
        with self.lock:
            self.done += tokens
            now = time.monotonic()
            if now - self.told >= PROGRESS_SECONDS:
                self.told = now
                self.report.progress(self.done, self.total, "tokens encoded", now - self.began)


def _read(folder: Path, pooling: str) -> tuple[Any, Any]:
    """The model, in float32, and the tokeniser of a folder."""
    try:
        with _quiet():
            model, found = transformers.AutoModel.from_pretrained(
                folder,
                dtype=torch.float32,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers, safetensors and tokenizers each raise their own
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise EncoderError(
            f"the encoder in {folder} cannot be loaded ({reason}); it is damaged, or its kind is "
            f"unknown to transformers {transformers.__version__}."
        ) from error

    # transformers fills in what a file lacks with random numbers, and only logs it.
    pooled = pooling == "pooler"
    lacking = [key for key in found["missing_keys"] if pooled or not key.startswith("pooler.")] + [
        str(key) for key in found["mismatched_keys"]
    ]
    if lacking:
        raise EncoderError(
            f"the weights in {folder} do not fit its config.json: {len(lacking)} tensors are "
            f"missing or of another shape, such as {lacking[0]}. Put the files of one model there."
        )
    if not tokenizer.is_fast:
        raise EncoderError(f"{folder} has no fast tokeniser; add the tokenizer.json of its model.")
    words = model.get_input_embeddings().num_embeddings
    if (known := largest_id(tokenizer) + 1) > words:
        raise EncoderError(
            f"the tokeniser in {folder} knows {known:,} tokens, its model {words:,}: they do not "
            "belong together. Put the files of one model there."
        )
    if getattr(model, "pooler", None) is None and pooled:
        raise EncoderError(
            f"encoder.pooling is pooler, but the {type(model).__name__} in {folder} has no pooling "
            "layer; use mean or first."
        )
    return model, tokenizer


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bars and tables that transformers prints while loading and saving."""
    log: Any = transformers.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()
