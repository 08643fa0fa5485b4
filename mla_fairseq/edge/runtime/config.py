"""The numbers of an exported speech translation model."""

from __future__ import annotations

from dataclasses import dataclass

from mla_fairseq.edge.runtime.folder import COPY, Folder
from mla_fairseq.edge.runtime.names import CONFIG
from mla_fairseq.models.wait_k import WaitK
from mla_fairseq.speech.samples import SAMPLE_RATE

WAIT_K, MONOTONIC, ANY = "waitk", "monotonic", "any"


@dataclass(frozen=True)
class Config:
    """What sessions need of config.json.

    Attributes:
        chunk: encoder states of a call.
        window: frames of a call (10 ms each).
        ahead: frames that must have arrived after those of the last state.
        lead: states before the first one, with which a stream begins; they are dropped.
        padding: frames before the first one, with which a stream begins.
        per_state: frames per encoder state.
        wait_k: the rule that the model was trained with; ``None``: none.
        monotonic: whether the model has monotonic attention.
        beam: hypotheses for which the decoder was exported.
        lenpen, max_len_a, max_len_b: as in ``SearchOptions``.
        eos, pad: special symbols.
        forced: tokens that a translation into a language begins with; ``None``: a model of one language.
        boundary_ahead: states after a state that its boundary output needs; ``None``: no boundary output.
        most_states, most_tokens: capacities of buffers; ``None``: no limit.
        longest: longest stretch in seconds.
    """

    chunk: int
    window: int
    ahead: int
    lead: int
    padding: int
    per_state: int
    wait_k: WaitK | None
    monotonic: bool
    beam: int
    lenpen: float
    max_len_a: float
    max_len_b: int
    eos: int
    pad: int
    forced: dict[str, list[int]] | None
    boundary_ahead: int | None
    most_states: int | None
    most_tokens: int | None
    longest: float

    @classmethod
    def read(cls, folder: Folder) -> Config:
        """Return the numbers of a folder.

        Raises:
            ValueError: one is missing or not possible.
        """
        if (rate := folder.get("sample_rate", int)) != SAMPLE_RATE:
            raise ValueError(f"{folder.path / CONFIG}: sample_rate is {rate}, but only {SAMPLE_RATE} is supported")
        policy, forced, limits = (folder.get(name, dict) for name in ("policy", "forced", "capacity"))
        try:
            if (rule := policy["type"]) not in (WAIT_K, MONOTONIC, ANY):
                raise ValueError(f"{folder.path / CONFIG}: its policy {rule!r} is not supported: export another model")
            return cls(
                chunk=folder.get("chunk", int, 1),
                window=folder.get("window", int, 1),
                ahead=folder.get("ahead", int, 0),
                lead=folder.get("lead", int, 0),
                padding=folder.get("padding", int, 0),
                per_state=folder.get("frames_per_state", int, 1),
                wait_k=WaitK(policy["lagging"][0], policy["lagging"][1], policy["ratio"]) if rule == WAIT_K else None,
                monotonic=rule == MONOTONIC,
                beam=folder.get("beam", int, 1),
                lenpen=folder.get("lenpen", float),
                max_len_a=folder.get("max_len_a", float, 0),
                max_len_b=folder.get("max_len_b", int, 0),
                eos=folder.get("eos", int, 0),
                pad=folder.get("pad", int, 0),
                forced={name: list(map(int, tokens)) for name, tokens in forced.items()} or None,
                boundary_ahead=(boundary := folder.config["boundary"]) and int(boundary["ahead"]),
                most_states=(most := limits["source"]) and int(most),
                most_tokens=(most := limits["target"]) and int(most),
                longest=folder.get("longest", float, 1),
            )
        except (LookupError, TypeError) as error:
            raise ValueError(f"{folder.path / CONFIG} is not complete ({error}): {COPY}") from error
