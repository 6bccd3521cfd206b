"""Hold an engine of embeddings or relevance against its reference on fixed texts."""

from __future__ import annotations

import importlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from engines.load_pooling import PoolingEngineOptions, load_pooling_engine
from engines.machine import physical_cores
from engines.manifest import Manifest
from engines.pooling.job import PoolingJob
from engines.pooling.spec import (
    EmbeddingVerification,
    PoolingSpec,
    RerankSpec,
    RerankVerification,
)
from engines.store import EngineFolder
from export.checkpoint import open_checkpoint
from export.compile_plan import CompileOptions
from export.pooling.compile import compile_pooling_engine, plan_pooling
from export.pooling.task import Task
from export.reference import transformers_name
from export.report import QuietProgress
from export.verify_prompts import QUESTIONS

FloatArray = NDArray[np.float32]

_DOCUMENTS = 4  # that each question of a reranker is held against


def pooling_texts(engine_dir: Path, spec: PoolingSpec) -> list[list[int]]:
    """What is read: the questions themselves, or each beside some of the others as documents."""
    tokenizer = Tokenizer.from_file(str(engine_dir / "tokenizer.json"))
    if isinstance(spec, RerankSpec):
        texts = [
            spec.prefix
            + spec.body.format(instruction=spec.instruction, query=query, document=document)
            + spec.suffix
            for i, query in enumerate(QUESTIONS)
            for document in (QUESTIONS[i:] + QUESTIONS[:i])[:_DOCUMENTS]
        ]
    else:
        texts = [*QUESTIONS, " ".join(QUESTIONS)]
    return [tokenizer.encode(text).ids[-spec.max_context :] for text in texts]


def engine_rows(manifest: Manifest, engine_dir: Path, texts: Sequence[list[int]]) -> FloatArray:
    """What the engine gives for each text, [len(texts), width]."""
    options = PoolingEngineOptions(num_threads=physical_cores(), verify_files=False)
    engine = load_pooling_engine(EngineFolder(engine_dir, manifest), options)
    for index, ids in enumerate(texts):
        engine.add(PoolingJob(index, ids))
    rows: dict[int, FloatArray] = {}
    while engine.has_work:
        rows |= {output.job_id: output.values for output in engine.step()}
    engine.close()
    return np.stack([rows[index] for index in range(len(texts))])


def fp32_engine_rows(
    manifest: Manifest, checkpoint: Path, scratch: Path, texts: Sequence[list[int]]
) -> FloatArray:
    """The same of an engine of full precision, which is compiled into the folder `scratch`."""
    task: Task = "rerank" if manifest.rerank is not None else "embedding"
    options = CompileOptions(
        engine_id="reference", precision="fp32", max_context=max(2, *map(len, texts))
    )
    plan = plan_pooling(open_checkpoint(checkpoint, "reference"), options, task)
    compiled = compile_pooling_engine(plan, scratch, QuietProgress())
    return engine_rows(compiled, scratch, texts)


def transformers_rows(
    checkpoint: Path, spec: PoolingSpec, texts: Sequence[list[int]]
) -> FloatArray:
    """The same by the reference implementation in fp32."""
    import torch

    transformers: Any = importlib.import_module("transformers")  # it has no types
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    is_reranker = isinstance(spec, RerankSpec)
    model_type = transformers.AutoModelForCausalLM if is_reranker else transformers.AutoModel
    model = model_type.from_pretrained(
        checkpoint,
        dtype=torch.float32,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
    ).eval()
    rows = []
    with torch.inference_mode():
        for ids in texts:
            output = model(torch.tensor([ids]))
            if isinstance(spec, RerankSpec):
                pair = output.logits[0, -1, [spec.false_token_id, spec.true_token_id]]
                rows.append(torch.softmax(pair, -1)[1:].numpy())
            else:
                rows.append(
                    torch.nn.functional.normalize(output.last_hidden_state[0, -1], dim=0).numpy()
                )
    return np.stack(rows)


def verify_pooling(
    manifest: Manifest, engine_dir: Path, checkpoint: Path, scratch: Path, *, by_transformers: bool
) -> EmbeddingVerification | RerankVerification:
    """Compare the engine with its reference."""
    spec = manifest.embedding or manifest.rerank
    assert spec is not None
    started = time.monotonic()
    texts = pooling_texts(engine_dir, spec)
    found = engine_rows(manifest, engine_dir, texts)
    if by_transformers:
        expected, name = transformers_rows(checkpoint, spec, texts), transformers_name()
    else:
        expected, name = fp32_engine_rows(manifest, checkpoint, scratch, texts), "engine fp32"
    errors = np.abs(found - expected)
    seconds = round(time.monotonic() - started, 1)
    if isinstance(spec, RerankSpec):
        return RerankVerification(
            reference=name,
            num_pairs=len(texts),
            mean_score_error=float(errors.mean()),
            max_score_error=float(errors.max()),
            seconds=seconds,
        )
    cosines = (found.astype(np.float64) * expected).sum(-1)
    return EmbeddingVerification(
        reference=name,
        num_texts=len(texts),
        mean_cosine=min(float(cosines.mean()), 1.0),
        min_cosine=min(float(cosines.min()), 1.0),
        max_error=float(errors.max()),
        seconds=seconds,
    )
