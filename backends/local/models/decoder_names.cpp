// Names as transformers writes them.

#include "backends/local/models/decoder_names.hpp"

namespace ganglion::local {
namespace {

DecoderNames opt_names(const ModelConfig& c) {
  DecoderNames n;
  n.prefixes = {"model.decoder.", "decoder.", "model.", ""};
  n.positions = "embed_positions";
  if (c.embedding_width() != c.hidden_size) n.project_in = "project_in", n.project_out = "project_out";
  n.final_norm = c.final_norm ? "final_layer_norm" : "";
  const bool before = c.residual == Residual::before;
  (before ? n.before_attention : n.sum_attention) = "self_attn_layer_norm";
  (before ? n.before_mlp : n.sum_mlp) = "final_layer_norm";
  n.out = "self_attn.out_proj";
  n.up = "fc1";
  n.down = "fc2";
  return n;
}

}  // namespace

DecoderNames decoder_names(const ModelConfig& c) {
  if (c.family == ModelFamily::opt) return opt_names(c);
  DecoderNames n;
  n.prefixes = {"model.", ""};
  // With a vision part beside it, as transformers 4 and 5 write it.
  if (c.family == ModelFamily::gemma3) {
    n.prefixes = {"model.", "language_model.model.", "model.language_model.", "language_model.", ""};
  }
  n.gate = "mlp.gate_proj";
  n.before_attention = "input_layernorm";
  n.before_mlp = "post_attention_layernorm";
  if (c.residual == Residual::around) {
    n.after_attention = "post_attention_layernorm";
    n.before_mlp = "pre_feedforward_layernorm";
    n.after_mlp = "post_feedforward_layernorm";
  }
  if (c.qk_norm) n.q_norm = "self_attn.q_norm", n.k_norm = "self_attn.k_norm";
  if (c.family == ModelFamily::phi3) n.qkv = "self_attn.qkv_proj", n.gate_up = "mlp.gate_up_proj";
  if (c.experts > 0) n.router = "block_sparse_moe.gate";
  return n;
}

}  // namespace ganglion::local
