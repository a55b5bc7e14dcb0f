"""MetaCLIP 2 as transformers' MetaClip2Model has it: CLIP's towers, and texts in XLM's pieces.

The vector of a text is taken at its first end mark, whatever the mark's id. Texts are causal, as CLIP's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clipsrv.manifest import VISION
from clipsrv.specs import TokenSpec
from conversions.families.clip import ClipOriginal, facts_of, identity_of
from conversions.families.family import Exportable, Facts, Identity
from conversions.files import TOKENIZER
from conversions.preprocessor import cropped
from conversions.tokenizers.pipeline import pad_id, read_rules, read_settings, served


class MetaClip2:
    name = "metaclip_2"

    def facts(self, folder: Path, config: Mapping[str, Any]) -> Facts:
        tokens = TokenSpec("unigram", pad_id(read_rules(folder), read_settings(folder)))
        return facts_of(folder, config, cropped(folder), tokens)

    def load(self, folder: Path, facts: Facts, *, safetensors: bool) -> MetaClip2Original:
        return MetaClip2Original(folder, facts, safetensors=safetensors)

    def tokenizer(self, folder: Path, facts: Facts) -> tuple[str, bytes]:
        return TOKENIZER, served(read_rules(folder))


class MetaClip2Original(ClipOriginal):
    @staticmethod
    def kinds() -> tuple[Any, Any, Any]:
        from transformers import CLIPImageProcessor, XLMRobertaTokenizerFast
        from transformers.models.metaclip_2.modeling_metaclip_2 import MetaClip2Model

        return MetaClip2Model, CLIPImageProcessor, XLMRobertaTokenizerFast

    def identity(self, tokenizer: bytes) -> Identity:
        return identity_of("metaclip_2", self.model.config, self._facts, tokenizer)

    def tower(self, name: str) -> Exportable:
        from conversions.causal import CausalTexts
        from conversions.export import Pooled, class_token_only, named

        model = self.model
        model.set_attn_implementation("eager")
        if name == VISION:
            config = model.config.vision_config
            module = named(Pooled(class_token_only(model.vision_model), model.visual_projection), config, name)
            return Exportable(module, heads=config.num_attention_heads, width=config.hidden_size, taken=0)
        config = model.config.text_config
        texts = CausalTexts(model.text_model, model.text_projection, self.begin())
        whole = named(Pooled(model.text_model, model.text_projection), config, name)
        heads, width = config.num_attention_heads, config.hidden_size
        return Exportable(texts, heads, width, through="torch", packed=True, fusible=whole)
