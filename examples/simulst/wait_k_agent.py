"""The wait-k agent as a file for ``simuleval --agent``.

With ``--agent-class mla_fairseq.agents.WaitKAgent`` no file is needed.
"""

from simuleval.utils import entrypoint

from mla_fairseq.agents import WaitKAgent

entrypoint(WaitKAgent)
