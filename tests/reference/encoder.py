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


def contrastive_loss(vectors, labels, temperature):
    """Mean cross-entropy of a row's relatives under the softmax over the other rows. `labels`: of
    each row a set; two rows are related by the sum of 1 / count over the labels that they share,
    where `counts` counts all rows."""
    counts = {label: sum(label in row for row in labels) for row in labels for label in row}
    losses = []
    for i, vector in enumerate(vectors):
        others = [j for j in range(len(vectors)) if j != i]
        related = [sum(1 / counts[label] for label in labels[i] & labels[j]) for j in others]
        scores = [float(np.dot(vector, vectors[j])) / temperature for j in others]
        logarithm = math.log(sum(math.exp(score) for score in scores))
        pairs = zip(related, scores, strict=True)
        total = sum(related)
        loss = sum(share * (logarithm - score) for share, score in pairs)
        losses.append(loss / total if total else 0.0)
    return sum(losses) / len(losses)
