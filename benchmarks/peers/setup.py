"""`python -m benchmarks peers-setup`."""

from __future__ import annotations

from rich.console import Console

from benchmarks.errors import PeerFailed
from benchmarks.peers.catalogue import all_peers
from benchmarks.peers.config import PeersSetupConfig
from benchmarks.peers.environments import make_ready
from benchmarks.peers.process import child_environment


def run_peers_setup(config: PeersSetupConfig) -> int:
    """Set up what is not ready; a peer that cannot be is left out with a sentence."""
    console = Console(stderr=True, soft_wrap=True)
    config.work_dir.mkdir(parents=True, exist_ok=True)
    for name, peer in all_peers(config.work_dir, config.torch).items():
        if name not in config.peers or peer.setup is None:
            continue
        if peer.setup.is_ready:
            console.print(f"{peer.name} is ready", highlight=False)
            continue
        console.print(f"setting up {peer.name}", highlight=False)
        try:
            make_ready(peer.setup, child_environment())
        except PeerFailed as error:
            console.print(f"{peer.name} is left out: {error}", markup=False, highlight=False)
    return 0
