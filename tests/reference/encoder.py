"""Slow twins of the encoder's parts: one text, one row, one node at a time."""

import math

import numpy as np
import torch


def embedding(model, tokenizer, text, max_length, pooling):
    """The unit vector of a single text: no batch, no padding, no mask."""
    ids = tokenizer(text, truncation=True, max_length=max_length)["input_ids"]
    with torch.inference_mode():
        hidden = model(input_ids=torch.tensor([ids])).last_hidden_state[0].double().numpy()
        pooled = model(input_ids=torch.tensor([ids])).get("pooler_output")
    if pooling == "pooler":
        vector = pooled[0].double().numpy()
    else:
        vector = hidden[0] if pooling == "first" else hidden.mean(axis=0)
    return vector / np.linalg.norm(vector)


def candidates(targets, pointer, active, row):
    """Nodes that count for a row: all children of each active parent and of each true parent."""
    true = {j for j in range(targets.shape[1]) if targets[row, j] != 0}
    if active is None:
        return set(range(targets.shape[1])), true
    nodes = set()
    for parent in range(len(pointer) - 1):
        children = set(range(pointer[parent], pointer[parent + 1]))
        if active[row, parent] != 0 or children & true:
            nodes |= children
    return nodes, true


def row_loss(vector, weight, bias, nodes, true, kind, counts=None):
    """Mean over the row's own candidates; 0 without any. `counts` of the true nodes weigh them."""
    losses = []
    for node in sorted(nodes):
        score = float(np.dot(vector, weight[node]) + bias[node])
        sign = 1.0 if node in true else -1.0
        if kind == "bce":
            loss = math.log1p(math.exp(-sign * score))
        elif kind == "hinge":
            loss = max(0.0, 1.0 - sign * score)
        else:
            loss = max(0.0, 1.0 - sign * score) ** 2
        losses.append(loss * counts[node] if counts is not None and node in true else loss)
    return sum(losses) / len(losses) if losses else 0.0
