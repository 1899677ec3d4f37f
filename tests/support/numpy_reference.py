# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""VATT in slow NumPy float64, written from the specification for comparison. Evaluation mode.

Shares no code with the package. Works on arrays under the release's variable paths; `v` is such a mapping
and `path` a prefix inside it. Loops where that is plainer than array tricks.
"""

import math

import numpy as np


ERF = np.vectorize(math.erf, otypes=[np.float64])
ACTIVATIONS = {
    "gelu": lambda x: 0.5 * x * (1 + ERF(x / math.sqrt(2))),
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x / (1 + np.exp(-x)),
}


def as_float64(variables):
    return {name: np.asarray(array, np.float64) for name, array in variables.items()}


def layer_norm(x, v, path, eps=1e-6):
    centred = x - x.mean(-1, keepdims=True)
    return (
        centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * v[path + "gamma"] + v[path + "beta"]
    )


def rms_norm(x, weight, eps=1e-6):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * weight


def batch_norm(x, v, path, eps=1e-5):
    scale = v[path + "gamma"] / np.sqrt(v[path + "moving_variance"] + eps)
    return (x - v[path + "moving_mean"]) * scale + v[path + "beta"]


def dense(x, v, path):
    y = x @ v[path + "kernel"]
    return y + v[path + "bias"] if path + "bias" in v else y


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def attention(x, v, path, heads, scale, bias=0.0, mask=None):
    """x (batch, length, width); mask (batch, length), 1 = visible."""
    q, k, w = (dense(x, v, f"{path}{name}/") for name in "qkv")
    width = q.shape[-1] // heads
    out = np.zeros_like(q)
    for b in range(x.shape[0]):
        for h in range(heads):
            part = slice(h * width, (h + 1) * width)
            scores = scale * q[b, :, part] @ k[b, :, part].T
            scores = scores + (bias[h] if np.ndim(bias) == 3 else bias)
            if mask is not None:
                scores = scores - 1e9 * (1 - mask[b][None, :])
            out[b, :, part] = softmax(scores) @ w[b, :, part]
    return dense(out, v, path + "o/")


def mlp(x, v, path, act):
    if act == "geglu":
        inner = ACTIVATIONS["gelu"](dense(x, v, path + "wi_0/")) * dense(x, v, path + "wi_1/")
    else:
        inner = ACTIVATIONS[act](dense(x, v, path + "wi/"))
    return dense(inner, v, path + "wo/")


def encoder(x, v, path, heads, layers, act="gelu", pre_norm=True, mask=None):
    for i in range(layers):
        p = f"{path}layers/{i}/"
        scale = 1 / math.sqrt(v[p + "mha/q/kernel"].shape[1] // heads)
        if pre_norm:
            x = x + attention(layer_norm(x, v, p + "layer_norm/"), v, p + "mha/", heads, scale, mask=mask)
            x = x + mlp(layer_norm(x, v, p + "feed_forward/layer_norm/"), v, p + "feed_forward/mlp/", act)
        else:
            x = layer_norm(x + attention(x, v, p + "mha/", heads, scale, mask=mask), v, p + "layer_norm/")
            x = layer_norm(x + mlp(x, v, p + "feed_forward/mlp/", act), v, p + "feed_forward/layer_norm/")
    return layer_norm(x, v, path + "final_layer_norm/") if pre_norm else x


def relative_bucket(relative):
    """Bucket of key place minus query place; 32 buckets, max distance 64. Official thresholds."""
    distance = abs(relative)
    if distance < 8:
        bucket = distance
    else:
        first_of_bucket = {8: 8, 9: 11, 10: 14, 11: 18, 12: 23, 13: 30, 14: 39, 15: 50}
        bucket = max(b for b, first in first_of_bucket.items() if distance >= first)
    return bucket + (16 if relative > 0 else 0)


def t5_encoder(x, v, path, heads, layers, act, mask):
    length = x.shape[1]
    table = v[path + "layers/0/self_attention/attention/relative_attention_bias/embeddings"]
    bias = np.zeros((heads, length, length))
    for query in range(length):
        for key in range(length):
            bias[:, query, key] = table[relative_bucket(key - query)]
    for i in range(layers):
        p = f"{path}layers/{i}/"
        normed = rms_norm(x, v[p + "self_attention/layer_norm/weight"])
        x = x + attention(normed, v, p + "self_attention/attention/", heads, 1.0, bias, mask)
        x = x + mlp(layer_norm(x, v, p + "feed_forward/layer_norm/"), v, p + "feed_forward/mlp/", act)
    return rms_norm(x, v[path + "final_layer_norm/weight"])


def t5_tower(ids, v, path, heads, layers, act="gelu"):
    words = v[path + "embedding/embeddings"][ids]
    agg = np.broadcast_to(v[path + "agg_embedding"], (len(ids), 1, words.shape[-1]))
    x = ACTIVATIONS["gelu"](dense(np.concatenate([agg, words], 1), v, path + "pre_proj/"))
    mask = np.concatenate([np.ones((len(ids), 1)), ids != 0], 1)
    return t5_encoder(x, v, path + "base_lm/", heads, layers, act, mask)


def linear_tower(ids, v, path):
    words = v[path + "embedding/embeddings"][ids]
    features = np.maximum(words @ v[path + "base_lm/conv1d/kernel"][0] + v[path + "base_lm/conv1d/bias"], 0)
    return features, features.max(1)


def bert_tower(ids, v, path, heads, layers, act="gelu", pre_norm=True):
    x = ACTIVATIONS["gelu"](dense(v[path + "embedding/embeddings"][ids], v, path + "pre_proj/"))
    lm = path + "base_lm/"
    table = v[lm + "pos_embedding_lookup/temporal_position_embeddings/embeddings"]
    x = x + layer_norm(table[: x.shape[1]], v, lm + "pos_embedding_lookup/layernorm/")
    agg = np.broadcast_to(v[lm + "agg_embedding"], (len(ids), 1, x.shape[-1]))
    mask = np.concatenate([np.ones((len(ids), 1)), ids != 0], 1)
    return encoder(np.concatenate([agg, x], 1), v, lm + "tx/", heads, layers, act, pre_norm, mask)


def polyharmonic_spline(table, rows, real=np.longdouble):
    """The release's formula as it stands, in extended precision."""
    n = len(table)
    if n == rows:
        return table
    centres, queries = np.arange(n, dtype=real) / n, np.arange(rows, dtype=real) / rows

    def radial(distance):
        return np.maximum(distance * distance, real("1e-10")) ** real(1.5)

    system = np.zeros((n + 2, n + 2), real)
    system[:n, :n] = radial(centres[:, None] - centres)
    system[:n, n] = system[n, :n] = centres
    system[:n, n + 1] = system[n + 1, :n] = 1
    right = np.zeros((n + 2, table.shape[1]), real)
    right[:n] = table
    for k in range(n + 2):  # elimination with pivoting; LAPACK has no extended precision
        pivot = k + np.abs(system[k:, k]).argmax()
        system[[k, pivot]], right[[k, pivot]] = system[[pivot, k]], right[[pivot, k]]
        factor = (system[k + 1 :, k] / system[k, k])[:, None]
        system[k + 1 :, k:] -= factor * system[k, k:]
        right[k + 1 :] -= factor * right[k]
    weights = np.zeros_like(right)
    for k in range(n + 1, -1, -1):
        weights[k] = (right[k] - system[k, k + 1 :] @ weights[k + 1 :]) / system[k, k]
    out = radial(queries[:, None] - centres) @ weights[:n] + queries[:, None] * weights[n] + weights[n + 1]
    return out.astype(np.float64)


def positions(v, path, grid, kind):
    """Normalised positions of the tokens (time slowest). Spectrogram ids are laid out mel-slowest."""
    look_up = {}
    for axis, rows in grid.items():
        look_up[axis] = polyharmonic_spline(v[f"{path}{axis}_position_embeddings/embeddings"], rows)
    rows = []
    if kind == "video":
        for t in range(grid["temporal"]):
            for h in range(grid["vertical"]):
                for w in range(grid["horizontal"]):
                    rows.append(look_up["temporal"][t] + look_up["vertical"][h] + look_up["horizontal"][w])
    elif kind == "waveform":
        rows = list(look_up["temporal"])
    else:
        for token in range(grid["temporal"] * grid["spectoral"]):
            mel, time = divmod(token, grid["temporal"])
            rows.append(look_up["temporal"][time] + look_up["spectoral"][mel])
    return layer_norm(np.array(rows), v, path + "layernorm/")


def patches(x, kernel, bias):
    """Strided convolution of x (batch, *space, channels), kernel = stride, incomplete patches left out."""
    extent = kernel.shape[:-2]
    grid = [size // e for size, e in zip(x.shape[1:-1], extent, strict=True)]
    flat_kernel = kernel.reshape(-1, kernel.shape[-1])
    tokens = []
    for place in np.ndindex(*grid):
        cut = tuple(slice(p * e, (p + 1) * e) for p, e in zip(place, extent, strict=True))
        tokens.append(x[(slice(None), *cut)].reshape(len(x), -1) @ flat_kernel + bias)
    return np.stack(tokens, 1), grid


def patch_tower(x, v, path, kind, heads, layers, act="gelu", pre_norm=True, keep=None):
    """x: (batch, frames, height, width, channels), (batch, samples, 1) or (batch, frames, bins, 1);
    keep: token numbers that DropToken left."""
    name = {"video": "voxel_to_patch/", "waveform": "wave_to_patch/", "spectrogram": "spectrum_to_patch/"}[
        kind
    ]
    tokens, grid = patches(x, v[path + name + "kernel"], v[path + name + "bias"])
    if path + "pre_proj/kernel" in v:
        tokens = ACTIVATIONS["gelu"](dense(tokens, v, path + "pre_proj/"))
    axes = {
        "video": ("temporal", "vertical", "horizontal"),
        "waveform": ("temporal",),
        "spectrogram": ("temporal", "spectoral"),
    }[kind]
    tokens = tokens + positions(v, path + "pos_embedding_lookup/", dict(zip(axes, grid, strict=True)), kind)
    if keep is not None:
        tokens = tokens[:, keep]
    agg = np.broadcast_to(v[path + "agg_embedding"], (len(x), 1, tokens.shape[-1]))
    hidden = encoder(np.concatenate([agg, tokens], 1), v, path + "tx/", heads, layers, act, pre_norm)
    if path + "post_proj/kernel" in v:
        hidden = ACTIVATIONS["gelu"](dense(hidden, v, path + "post_proj/"))
    return hidden


def fac_head(video, audio, text, v, path):
    hidden = np.maximum(batch_norm(dense(video, v, path + "vid_to_hid/"), v, path + "hid_to_va/pre_bn/"), 0)
    video_va = batch_norm(dense(hidden, v, path + "hid_to_va/dense/"), v, path + "hid_to_va/bn/")
    coarse = dense(np.maximum(video_va, 0), v, path + "va_to_vat/dense/")
    video_vt = batch_norm(coarse, v, path + "va_to_vat/bn/")
    return video_va, dense(audio, v, path + "aud_to_va/"), video_vt, dense(text, v, path + "txt_to_vat/")


def joint_head(pooled, v, path):
    """One modality; `path` ends in its name, e.g. `.../vid_to_vat/`."""
    return batch_norm(dense(np.maximum(pooled, 0), v, path + "dense/"), v, path + "bn/")
