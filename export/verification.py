"""Have an engine verified in another process, and hold the report against the bars."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

import msgspec

from engines.manifest import Manifest
from export.errors import VerificationFailed
from export.verify import VerificationResult

# precision -> (top-1 agreement at least, mean KL divergence in nats at most)
BARS = {"fp32": (0.999, 1e-4), "int8": (0.98, 0.01), "int4": (0.90, 0.1)}


def run_verification(manifest: Manifest, engine_dir: Path, checkpoint: Path) -> VerificationResult:
    """Run `python -m export.verify`; it ends with this process, however that ends.

    Raises:
        VerificationFailed: The process failed or was killed.
    """
    command = [sys.executable, "-P", "-m", "export.verify", "--manifest-on-stdin"]
    command += ["--engine-dir", str(engine_dir), "--checkpoint-path", str(checkpoint)]
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=_environment(),
        ) as process,
    ):
        try:
            output = _converse(process, msgspec.json.encode(manifest) + b"\n")
        except BaseException:
            process.kill()
            raise
        if process.returncode != 0:
            raise VerificationFailed(_failure(process.returncode, errors))
    return msgspec.json.decode(output, type=VerificationResult)


def check_bars(manifest: Manifest, result: VerificationResult) -> None:
    """Refuse an engine that is too far from its reference.

    Raises:
        VerificationFailed: It misses a bar of its precision.
    """
    report = result.report
    if report is None or result.is_untrained:
        return
    least_top1, most_kl = BARS[manifest.precision]
    if report.top1_agreement >= least_top1 and report.mean_kl <= most_kl:
        return
    raise VerificationFailed(
        f"the engine agrees with {report.reference} on {report.top1_agreement:.1%} of the tokens "
        f"at a mean KL of {report.mean_kl:.3g}, but {manifest.precision} has to reach "
        f"{least_top1:.0%} and {most_kl:g}: choose a higher precision, raise some nodes by "
        "--override, or keep it by --force"
    )


def _environment() -> dict[str, str]:
    """The other process finds this package where this one did, from whatever folder it runs."""
    paths = [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


def _converse(process: subprocess.Popen[bytes], message: bytes) -> bytes:
    """Send the manifest, and leave standard input open until the answer is complete."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(message)
        process.stdin.flush()
    except BrokenPipeError:  # it failed at once; its error says why
        pass
    output = process.stdout.read()
    process.wait()
    return output


def _failure(status: int, errors: IO[bytes]) -> str:
    if status < 0:
        return (
            f"the verification was ended by signal {-status}, perhaps for lack of memory: "
            "add --no-verify to export without it"
        )
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines()
    reason = lines[-1].removeprefix("error: ") if lines else f"exit status {status}"
    return f"the verification failed: {reason}"
