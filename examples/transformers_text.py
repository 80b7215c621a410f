"""FreezeOut in the Trainer of Hugging Face transformers: a small GPT-2 that learns to write.

Run it with ``python examples/transformers_text.py``; it takes less than a minute and needs
``freezeout[transformers]``. The text is the reference of the Python language that comes with every
Python; ``--data FILE`` takes another. What FreezeOut adds is the two marked lines.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from pathlib import Path
from pydoc_data.topics import topics

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed

from freezeout.integrations.transformers import FreezeOutCallback

LENGTH = 64
"""Characters per sample."""


def samples(text: str) -> list[dict[str, torch.Tensor]]:
    """Cut a text into pieces; every character of ASCII is a token."""
    ids = torch.tensor(list(text.encode("ascii", "replace")))
    rows = ids[: len(ids) // LENGTH * LENGTH].view(-1, LENGTH)
    return [{"input_ids": row, "labels": row} for row in rows]


def main(steps: int = 300, t0: float = 0.8, data: Path | None = None) -> tuple[float, int]:
    """Train; return the bits per character on unseen text and the number of frozen layers."""
    set_seed(0)
    torch.set_num_threads(1)
    text = data.read_text("utf-8") if data else "\n".join(map(str, topics.values()))
    rows = samples(text)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=128,
            n_positions=LENGTH,
            n_embd=64,
            n_layer=4,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            n_head=4,
            tie_word_embeddings=False,  # a tied input learns to the end: little would be saved
            bos_token_id=0,
            eos_token_id=0,
        )
    )
    callback = FreezeOutCallback(t0=t0, scale_cap=2.0)  # one
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=16,
            learning_rate=3e-3,
            warmup_steps=steps // 20,
            logging_steps=max(1, steps // 10),
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            dataloader_pin_memory=False,
            disable_tqdm=True,
        )
        trainer = Trainer(
            model,
            arguments,
            train_dataset=rows[:-200],
            eval_dataset=rows[-200:],
            callbacks=[callback],  # two
        )
        begun = time.process_time()
        trainer.train()
        seconds = time.process_time() - begun
        loss = float(trainer.evaluate()["eval_loss"])
    assert callback.scheduler is not None
    print(callback.scheduler)
    bits = loss / math.log(2)
    print(
        f"{callback.scheduler.frozen} layers frozen, {bits:.2f} bits per character, "
        f"{seconds:.2f} s of the processor"
    )
    return bits, callback.scheduler.frozen


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--t0", type=float, default=0.8, help="1 freezes nothing")
    parser.add_argument("--data", type=Path, help="a text file to learn from")
    given = parser.parse_args()
    main(given.steps, given.t0, given.data)
