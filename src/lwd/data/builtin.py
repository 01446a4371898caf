import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


def digits(split):
    d = load_digits()
    a, b = train_test_split(range(len(d.target)), test_size=0.25, stratify=d.target, random_state=0)
    i = a if split == "train" else b
    return torch.tensor(d.images[i] / 8 - 1).float()[:, None], torch.tensor(d.target[i]).long()
