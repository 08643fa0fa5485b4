"""Wait-k as a file, for ``simuleval --agent``; ``--agent-class mla_fairseq.agents.WaitKAgent`` needs no file."""

from simuleval.utils import entrypoint

from mla_fairseq.agents import WaitKAgent

entrypoint(WaitKAgent)
