"""The peer of `recommendations`: SASRec of RecBole, with cross-entropy over the whole catalogue. Runs in an environment
of its own, in which `recbole`, `numpy<2`, `scipy<1.14` and `pandas<2.3` are installed.

Its defaults, with windows that hold 95% of the histories whole. Each event of a history is a row that is predicted from
those before, as is RecBole's way. It keeps the epoch that is best on the validation events, with which it is not
trained.
"""

from __future__ import annotations

import contextlib
import copy
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.recommend.peers.protocol import Histories, Job, Over, serve, window
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.data.interaction import Interaction
from recbole.model.sequential_recommender import SASRec
from recbole.trainer import Trainer
from recbole.utils import init_seed


def write(histories: Histories, path: Path) -> None:
    """The training events as RecBole reads them."""
    with path.open("w") as out:
        out.write("user_id:token\titem_id:token\ttimestamp:float\n")
        for user, history in enumerate(histories):
            out.writelines(f"{user}\t{item}\t{place}\n" for place, item in enumerate(history))


def learn(task: Job) -> dict[str, Any]:
    torch.set_num_threads(1)
    histories = task.lists("validation_histories")
    size = window(histories)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "log").mkdir()
        write(histories, Path(folder) / "log" / "log.inter")
        told: dict[str, Any] = {
            "data_path": folder,
            "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
            "MAX_ITEM_LIST_LENGTH": size,
            "train_neg_sample_args": None,
            "eval_args": {"split": {"RS": [1, 0, 0]}, "group_by": "user", "order": "TO", "mode": "full"},
            "use_gpu": False,
            "seed": 0,
            "show_progress": False,
            "state": "ERROR",
            "checkpoint_dir": folder,
            "log_wandb": False,
        }
        config = Config(model="SASRec", dataset="log", config_dict=told)
        init_seed(0, True)
        data = create_dataset(config)
        rows, _, _ = data_preparation(config, data)
        model = SASRec(config, rows.dataset)
        trainer = Trainer(config, model)
    number = np.zeros(task.items, np.int64)  # of RecBole, by ours; 0 for an item that was not trained on
    for token, own in data.field2token_id["item_id"].items():
        if own:
            number[int(token)] = own
    loss = model.calculate_loss

    def calculate_loss(interaction: Any) -> Any:
        task.check()
        return loss(interaction)

    model.calculate_loss = calculate_loss

    def answer(each: Histories) -> np.ndarray:
        kept = [number[h][number[h] > 0][-size:] for h in each]
        sequences = torch.zeros(len(each), size, dtype=torch.int64)
        for row, history in enumerate(kept):
            sequences[row, : len(history)] = torch.from_numpy(history)
        lengths = torch.tensor([max(1, len(h)) for h in kept])
        with torch.no_grad():
            scores = model.full_sort_predict(
                Interaction({model.ITEM_SEQ: sequences, model.ITEM_SEQ_LEN: lengths})
            ).numpy()
        out = scores[:, number]
        out[:, number == 0] = np.finfo(np.float32).min
        return out

    with contextlib.suppress(Over):
        while True:
            model.train()
            trainer._train_epoch(rows, task.epochs, show_progress=False)
            model.eval()
            task.judge(answer, lambda: copy.deepcopy(model.state_dict()))
    told_us = f"64 factors, windows of {size}"
    if task.state is None:
        task.epochs, told_us = 1, f"{told_us}, stopped within its first epoch"
    else:
        model.load_state_dict(task.state)
    model.eval()
    return task.facts(answer, told_us, len(histories))


if __name__ == "__main__":
    serve(learn)
