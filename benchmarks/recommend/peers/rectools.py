"""The peer of `recommendations`: SASRec (softmax over the whole catalogue) and BERT4Rec of RecTools. Runs in an
environment of its own, in which `rectools[torch]` is installed.

Its defaults, but 128 factors instead of 256, with which a processor sees more of the data in the time, and windows that
hold 95% of the histories whole. It keeps the epoch that is best on the validation events, with which it is not trained.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from typing import Any

import numpy as np
import pandas as pd
import torch
from benchmarks.recommend.peers.protocol import Histories, Job, Over, serve, window
from pytorch_lightning import Callback, Trainer, seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import BERT4RecModel, SASRecModel

FACTORS = 128


def frame(histories: Histories) -> pd.DataFrame:
    """A row for each event; users are numbered, and times are places in the history."""
    sizes = [len(h) for h in histories]
    return pd.DataFrame(
        {
            Columns.User: np.repeat(np.arange(len(histories)), sizes),
            Columns.Item: np.concatenate(histories),
            Columns.Weight: 1.0,
            Columns.Datetime: pd.to_datetime(np.concatenate([np.arange(n) for n in sizes]), unit="s"),
        }
    )


def answered(model: SASRecModel | BERT4RecModel, histories: Histories, items: int) -> np.ndarray:
    """Scores (B, V) of histories; those of an item that was not trained on, and of a history without any other, are
    the least number."""
    out = np.full((len(histories), items), np.finfo(np.float32).min, np.float32)
    there = [i for i, h in enumerate(histories) if len(h)]
    if not there:
        return out
    data = Dataset.construct(frame([histories[i] for i in there]))
    asked = model.data_preparator.transform_dataset_u2i(data, np.arange(len(there)))
    if not asked.user_id_map.size:
        return out
    loader = model.data_preparator.get_dataloader_recommend(asked, model.recommend_batch_size)
    users, of_items = model.lightning_model._get_user_item_embeddings(loader, "cpu")
    known = model.data_preparator.get_known_items_sorted_internal_ids()
    names = model.data_preparator.item_id_map.convert_to_external(known).astype(np.int64)
    rows = np.array(there)[np.asarray(asked.user_id_map.external_ids, np.int64)]
    out[np.ix_(rows, names)] = (users @ of_items[known].T).detach().numpy()
    return out


class Judge(Callback):
    def __init__(self, task: Job) -> None:
        self.task, self.model = task, None

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):  # type: ignore[no-untyped-def]
        self.task.check()

    def on_train_epoch_end(self, trainer, module):  # type: ignore[no-untyped-def]
        module.eval()
        self.task.judge(
            lambda histories: answered(self.model, histories, self.task.items),
            lambda: copy.deepcopy(module.torch_model.state_dict()),
        )
        module.train()


def learn(task: Job) -> dict[str, Any]:
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    seed_everything(0)
    histories = task.lists("validation_histories")
    judge, size = Judge(task), window(histories)

    def trainer() -> Trainer:
        return Trainer(
            max_epochs=1_000_000,
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            callbacks=[judge],
        )

    kind = {"sasrec": SASRecModel, "bert4rec": BERT4RecModel}[task.model]
    model = kind(n_factors=FACTORS, session_max_len=size, loss="softmax", get_trainer_func=trainer)
    judge.model = model
    model._build_model_from_dataset(Dataset.construct(frame([h for h in histories if len(h)])))
    with contextlib.suppress(Over):
        trainer().fit(model.lightning_model, model.data_preparator.get_dataloader_train())
    told = f"{FACTORS} factors, windows of {size}"
    if task.state is None:
        task.epochs, told = 1, f"{told}, stopped within its first epoch"
    else:
        model.lightning_model.torch_model.load_state_dict(task.state)
    model.lightning_model.eval()
    return task.facts(lambda each: answered(model, each, task.items), told, len(histories))


if __name__ == "__main__":
    serve(learn)
