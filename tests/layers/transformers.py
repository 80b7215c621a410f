"""Small transformers, to be cut into layers."""

import torch
from torch import nn
from torch.nn import functional as F


class Attention(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        return self.out(torch.softmax(q @ k.mT, -1) @ v)


class TransformerBlock(nn.Module):
    """Norms defined last, as many do: were it opened, they would join the wrong layers."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.attention = Attention(width)
        self.mlp = nn.Sequential(nn.Linear(width, 16), nn.GELU(), nn.Linear(16, width))
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 8))
        self.pos_embed = nn.Parameter(torch.zeros(1, 17, 8))
        self.patch_embed = nn.Conv2d(3, 8, 4, 4)
        self.pos_drop = nn.Dropout()
        self.blocks = nn.Sequential(*(TransformerBlock() for _ in range(3)))
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        x = self.patch_embed(x).flatten(2).mT
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1)
        x = self.blocks(self.pos_drop(x + self.pos_embed))
        return self.head(self.norm(x)[:, 0])


class Encoder(nn.Module):
    """As in torchvision: the position embedding sits on the inner container."""

    def __init__(self) -> None:
        super().__init__()
        self.pos_embedding = nn.Parameter(torch.zeros(1, 16, 8))
        self.layers = nn.Sequential(*(TransformerBlock() for _ in range(2)))
        self.ln = nn.LayerNorm(8)

    def forward(self, x):
        return self.ln(self.layers(x + self.pos_embedding))


class EncoderViT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv_proj = nn.Conv2d(3, 8, 4, 4)
        self.encoder = Encoder()
        self.heads = nn.Sequential(nn.Dropout(), nn.Linear(8, 2))

    def forward(self, x):
        return self.heads(self.encoder(self.conv_proj(x).flatten(2).mT).mean(1))


class GPT(nn.Module):
    def __init__(self, *, tied: bool = True, functional: bool = False) -> None:
        super().__init__()
        self.wte = nn.Embedding(11, 8)
        self.wpe = nn.Embedding(5, 8)
        self.h = nn.ModuleList(TransformerBlock() for _ in range(2))
        self.ln_f = nn.LayerNorm(8)
        if not functional:
            self.lm_head = nn.Linear(8, 11, bias=False)
            if tied:
                self.lm_head.weight = self.wte.weight
        self.functional = functional

    def forward(self, ids):
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1]))
        for block in self.h:
            x = block(x)
        x = self.ln_f(x)
        return F.linear(x, self.wte.weight) if self.functional else self.lm_head(x)


class Expert(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(8, 8)
        self.down = nn.Linear(8, 8)

    def forward(self, x):
        return self.down(F.relu(self.up(x)))


class MoEBlock(nn.Module):
    """Experts in a list, norms defined last."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = Attention()
        self.gate = nn.Linear(8, 3)
        self.experts = nn.ModuleList(Expert() for _ in range(3))
        self.norm1 = nn.LayerNorm(8)
        self.norm2 = nn.LayerNorm(8)

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        weights = torch.softmax(self.gate(x), -1)
        return x + sum(
            weights[..., i : i + 1] * expert(self.norm2(x)) for i, expert in enumerate(self.experts)
        )


class MoE(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.layers = nn.ModuleList(MoEBlock() for _ in range(3))
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 11)

    def forward(self, ids):
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


class Stage(nn.Module):
    def __init__(self, width: int, *, last: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(TransformerBlock(width) for _ in range(2))
        self.downsample = None if last else nn.Linear(width, 2 * width)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class Swin(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, 4, 4, 4)
        self.layers = nn.ModuleList([Stage(4, last=False), Stage(8, last=True)])
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        x = self.patch_embed(x).flatten(2).mT
        for stage in self.layers:
            x = stage(x)
        return self.head(self.norm(x).mean(1))


class BertEmbeddings(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.word = nn.Embedding(1000, 8)  # more than half of all parameters
        self.position = nn.Embedding(5, 8)
        self.norm = nn.LayerNorm(8)

    def forward(self, ids):
        return self.norm(self.word(ids) + self.position(torch.arange(ids.shape[1])))


class BertEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.ModuleList(TransformerBlock() for _ in range(2))

    def forward(self, x):
        for layer in self.layer:
            x = layer(x)
        return x


class BertModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embeddings = BertEmbeddings()
        self.encoder = BertEncoder()
        self.pooler = nn.Sequential(nn.Linear(8, 8), nn.Tanh())

    def forward(self, input_ids):
        return self.pooler(self.encoder(self.embeddings(input_ids))[:, 0])


class BertClassifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bert = BertModel()
        self.dropout = nn.Dropout()
        self.classifier = nn.Linear(8, 2)

    def forward(self, input_ids):
        return self.classifier(self.dropout(self.bert(input_ids)))


class Tower(nn.Module):
    """Like CLIP's: norms around a stack of blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 8)
        self.layers = nn.ModuleList(TransformerBlock() for _ in range(2))
        self.norm = nn.LayerNorm(8)

    def forward(self, x):
        x = self.embed(x)
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)


class TwoTowers(nn.Module):
    """Defined text first, executed image first."""

    def __init__(self) -> None:
        super().__init__()
        self.text = Tower()
        self.image = Tower()
        self.image_head = nn.Linear(8, 4)
        self.text_head = nn.Linear(8, 4)

    def forward(self, text, image):
        image = self.image_head(self.image(image))
        return image @ self.text_head(self.text(text)).mT
