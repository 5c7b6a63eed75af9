#pragma once
// What the tensors of a decoder are called, and which of them it has: with ModelConfig the whole description of a
// family, from which the decoders on the CPU and the GPU are built alike.

#include <string>
#include <vector>

#include "backends/local/weights/model_config.hpp"

namespace ganglion::local {

// Norms stand where their name is not empty. A name of a projection lacks ".weight" and ".bias", one of a norm too.
struct DecoderNames {
  std::vector<std::string> prefixes;  // tried in turn before every name
  std::string embedding = "embed_tokens";
  std::string positions;                // the learned table
  std::string project_in, project_out;  // between embedding_width() and hidden_size
  std::string final_norm = "norm";
  std::string head = "lm_head";

  // These follow layer(i).
  std::string before_attention, after_attention, before_mlp, after_mlp;  // of what goes in, of what comes out
  std::string sum_attention, sum_mlp;                                    // of the residual sum
  std::string q = "self_attn.q_proj", k = "self_attn.k_proj", v = "self_attn.v_proj";
  std::string qkv;  // where the file has them as one
  std::string out = "self_attn.o_proj";
  std::string q_norm, k_norm;
  std::string gate, up = "mlp.up_proj", down = "mlp.down_proj";
  std::string gate_up;  // where the file has them as one
  std::string router;

  std::string layer(std::int64_t index) const { return "layers." + std::to_string(index) + "."; }
  // One expert's gate, up and down projection.
  std::string expert(std::int64_t index, const char* which) const {
    return "block_sparse_moe.experts." + std::to_string(index) + "." + which;
  }
};

DecoderNames decoder_names(const ModelConfig& config);

}  // namespace ganglion::local
