"""Chinese-CLIP as transformers' ChineseCLIPModel has it: CLIP's images, and texts read by BERT.

The vector of a text is its first token's, projected; every token sees every other but padding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipsrv.manifest import VISION
from clipsrv.specs import TokenSpec
from conversions.families.clip import ClipOriginal, facts_of, identity_of
from conversions.families.family import Exportable, Facts, Identity
from conversions.files import TOKENIZER
from conversions.preprocessor import cropped, read_steps, squashed

if TYPE_CHECKING:
    import torch

#: Tokens of a text in training, and in cn_clip. The positions would go on to 512, which nothing was trained for.
_CONTEXT = 52
_PAD = 0


class ChineseClip:
    name = "chinese_clip"

    def facts(self, folder: Path, config: Mapping[str, Any]) -> Facts:
        cut = read_steps(folder)[1].get("do_center_crop", True)
        preprocess = cropped(folder) if cut else squashed(folder)
        return facts_of(folder, config, preprocess, TokenSpec("wordpiece", _PAD), longest=_CONTEXT)

    def load(self, folder: Path, facts: Facts, *, safetensors: bool) -> ChineseClipOriginal:
        return ChineseClipOriginal(folder, facts, safetensors=safetensors)

    def tokenizer(self, folder: Path, facts: Facts) -> tuple[str, bytes]:
        from transformers import BertTokenizerFast

        tokenizer: Any = BertTokenizerFast.from_pretrained(folder, local_files_only=True)
        backend = tokenizer.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        return TOKENIZER, backend.to_str().encode()


class ChineseClipOriginal(ClipOriginal):
    @staticmethod
    def kinds() -> tuple[Any, Any, Any]:
        from transformers import BertTokenizerFast, ChineseCLIPImageProcessor, ChineseCLIPModel

        return ChineseCLIPModel, ChineseCLIPImageProcessor, BertTokenizerFast

    def identity(self, tokenizer: bytes) -> Identity:
        return identity_of("chinese_clip", self.model.config, self._facts, tokenizer)

    def text_features(self, texts: Sequence[str]) -> torch.Tensor:
        # 4.57's get_text_features asks for a pooled output that its BERT does not have.
        states = self.model.text_model(**self._tokens(texts, padding=True, return_tensors="pt")).last_hidden_state
        features: torch.Tensor = self.model.text_projection(states[:, 0])
        return features

    def tower(self, name: str) -> Exportable:
        from conversions.export import FirstToken, Pooled, class_token_only, named

        model = self.model
        model.set_attn_implementation("eager")
        if name == VISION:
            config = model.config.vision_config
            module = named(Pooled(class_token_only(model.vision_model), model.visual_projection), config, name)
            return Exportable(module, heads=config.num_attention_heads, width=config.hidden_size, taken=0)
        config = model.config.text_config
        module = named(FirstToken(model.text_model, model.text_projection, _PAD), config, name)
        return Exportable(module, heads=config.num_attention_heads, width=config.hidden_size)
