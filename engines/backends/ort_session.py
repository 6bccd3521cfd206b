"""Open a graph in ONNX Runtime on CPU, with the settings that all engines share."""

from __future__ import annotations

import threading
from pathlib import Path

import onnxruntime as ort

from engines.backends.huge_pages import in_huge_pages
from engines.errors import EngineIncompatible
from engines.machine import has_fast_int8

_SHARED = threading.Event()  # the runtime has one pool a process, which cannot be taken back


def share_threads(num_threads: int) -> None:
    """Let all sessions that this process opens from now on compute in one pool of threads.

    Each with a pool of its own would run as many threads as all of them together, and threads that
    wait for others of their pool spin on the cores that those need. Once there is such a pool, the
    runtime refuses sessions without it, so this is for processes that open engines alone.
    """
    if not _SHARED.is_set():
        ort.set_global_thread_pool_sizes(num_threads, 1)
        _SHARED.set()


def open_session(
    graph: Path,
    num_threads: int,
    profile: Path | None = None,
    *,
    reduce_range: bool = False,
) -> ort.InferenceSession:
    """Open a graph; `profile` is how the file begins that the time of every node is written to.

    With a reduced range its weights in int8 fill 7 bits, as the manifest says: then no sum of
    products is too large for any processor, and opening need not look for such weights.

    Raises:
        EngineIncompatible: This release of the runtime cannot load it.
    """
    options = ort.SessionOptions()
    if _SHARED.is_set():
        options.use_per_session_threads = False
    else:
        options.intra_op_num_threads = num_threads
    options.log_severity_level = 3
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    if not (reduce_range or has_fast_int8()):
        # Sums of two products would saturate. The exact kernels take up to a third longer, and the
        # runtime seconds to bring the weights into their form (docs/performance.md).
        options.add_session_config_entry("session.x64quantprecision", "1")
    # Between two runs the cores belong to sampling and to the event loop.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        return in_huge_pages(
            lambda: ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        )
    except Exception as error:
        raise EngineIncompatible(
            f"ONNX Runtime {ort.__version__} cannot load {graph}: {error}"
        ) from error
