"""llama.cpp's converter for a vocabulary that it has not seen, which it takes for Qwen2's.

CONVERTER_PYTHON -m benchmarks.peers.adapters.llamacpp_convert SOURCE_FOLDER CHECKPOINT --outfile F

The converter knows pre-tokenizers by the hash of some encoded text. That of a made-up vocabulary is
in no list, though its rules for cutting text are Qwen2's.
"""

import importlib
import sys
from pathlib import Path


def main() -> None:
    source = Path(sys.argv.pop(1))
    sys.path.insert(0, str(source))
    sys.path.insert(0, str(source / "gguf-py"))
    base = importlib.import_module("conversion.base")
    known = base.TextModel.get_vocab_base_pre

    def pre_tokenizer(self: object, tokenizer: object) -> str:
        try:
            return str(known(self, tokenizer))
        except NotImplementedError:
            return "qwen2"

    base.TextModel.get_vocab_base_pre = pre_tokenizer
    base.ModelBase.no_mtp = True  # else it asks Qwen3.5 for layers that predict ahead
    importlib.import_module("convert_hf_to_gguf").main()


if __name__ == "__main__":
    main()
