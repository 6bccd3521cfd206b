"""`python -m benchmarks`: a command for each thing that is measured; `--help` lists them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from cyclopts import App

from engines.cli import add_command, fail, run_app

_EXTRA = ("httpx", "rich")  # what the extra `bench` installs
_HINT = "`pip install 'enginery[bench]'`"


def create_app(name: str = "python -m benchmarks") -> App:
    """The command line; `name` is what stands before the commands in its help."""
    from benchmarks.checkpoints.command import ChatCheckpointConfig, run_chat_checkpoint
    from benchmarks.compare import CompareConfig, run_compare
    from benchmarks.drafts import DraftsConfig, run_drafts
    from benchmarks.engine import EngineBenchConfig, run_engine
    from benchmarks.gpu.command import GpuConfig, run_gpu
    from benchmarks.grammar_overhead import GrammarConfig, run_grammar
    from benchmarks.growth import GrowthConfig, run_growth
    from benchmarks.images.command import run_checkpoint, run_images
    from benchmarks.images.config import CheckpointConfig, ImagesConfig
    from benchmarks.images.quality import QualityConfig, run_quality
    from benchmarks.images.serve import ServeImagesConfig, run_serve_images
    from benchmarks.peers.command import run_peers
    from benchmarks.peers.config import PeersConfig, PeersSetupConfig
    from benchmarks.peers.setup import run_peers_setup
    from benchmarks.serve import ServeConfig, run_serve
    from benchmarks.server_path.command import ServerPathConfig, run_server_path
    from benchmarks.together import TogetherConfig, run_together
    from benchmarks.waits import WaitsConfig, run_waits

    app = App(
        name=name,
        help="Measure a running server, an engine without HTTP, or the engine beside its peers.",
        version_flags=[],
    )
    add_command(app, ServeConfig, run_serve, name="serve")
    add_command(app, CompareConfig, run_compare, name="compare")
    add_command(app, EngineBenchConfig, run_engine, name="engine")
    add_command(app, DraftsConfig, run_drafts, name="drafts")
    add_command(app, GrammarConfig, run_grammar, name="grammar")
    add_command(app, GrowthConfig, run_growth, name="growth")
    add_command(app, ServerPathConfig, run_server_path, name="server-path")
    add_command(app, TogetherConfig, run_together, name="together")
    add_command(app, WaitsConfig, run_waits, name="waits")
    add_command(app, PeersConfig, run_peers, name="peers")
    add_command(app, PeersSetupConfig, run_peers_setup, name="peers-setup")
    add_command(app, GpuConfig, run_gpu, name="gpu")
    add_command(app, ChatCheckpointConfig, run_chat_checkpoint, name="chat-checkpoint")
    add_command(app, ImagesConfig, run_images, name="images")
    add_command(app, QualityConfig, run_quality, name="image-quality")
    add_command(app, ServeImagesConfig, run_serve_images, name="serve-images")
    add_command(app, CheckpointConfig, run_checkpoint, name="images-checkpoint")
    return app


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit with its status; settings come from the TOML table `bench` too."""
    try:
        app = create_app()
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        fail(f"the benchmarks need {error.name}, which is not installed: {_HINT}")
    run_app(app, "bench", argv)


if __name__ == "__main__":
    main()
