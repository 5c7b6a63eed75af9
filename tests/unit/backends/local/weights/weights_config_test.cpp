// config.json of each family in transformers-4 and -5 spelling, generation_config.json, sentence-transformers files,
// and the errors for what is not implemented.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "backends/local/weights/model_config.hpp"
#include "tests/unit/backends/local/weights/weights_files.hpp"

namespace ganglion::local {
namespace {

using test::TempDir;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

const std::string kSizes =
    R"("vocab_size":320,"hidden_size":64,"num_hidden_layers":3,"num_attention_heads":4,"intermediate_size":96)";

std::string config(std::string_view type, std::string_view more = "") {
  return "{\"model_type\":\"" + std::string(type) + "\"," + kSizes + std::string(more.empty() ? "" : ",") +
         std::string(more) + "}";
}

core::Result<ModelConfig> load(std::string_view config_json, std::string_view generation_json = "") {
  TempDir dir;
  dir.write("config.json", config_json);
  if (!generation_json.empty()) dir.write("generation_config.json", generation_json);
  return load_model_config(dir.path());
}

ModelConfig loaded(std::string_view config_json, std::string_view generation_json = "") {
  auto result = load(config_json, generation_json);
  EXPECT_TRUE(result) << result.error().message;
  return result.value_or(ModelConfig{});
}

std::string error_of(std::string_view config_json) {
  auto result = load(config_json);
  return result ? "" : result.error().message;
}

TEST(ModelConfig, ReadsLlamaInTheOldSpelling) {
  const ModelConfig c = loaded(config(
      "llama",
      R"("num_key_value_heads":2,"max_position_embeddings":4096,"rms_norm_eps":1e-05,"hidden_act":"silu",)"
      R"("rope_theta":500000.0,"rope_scaling":{"factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,)"
      R"("original_max_position_embeddings":1024,"rope_type":"llama3"},"tie_word_embeddings":true,)"
      R"("torch_dtype":"bfloat16","bos_token_id":1,"eos_token_id":[2,7],"attention_bias":false,"mlp_bias":true)"));
  EXPECT_EQ(c.family, ModelFamily::llama);
  EXPECT_EQ(c.vocab_size, 320);
  EXPECT_EQ(c.layers, 3);
  EXPECT_EQ(c.kv_heads, 2);
  EXPECT_EQ(c.head_dim, 16);
  EXPECT_EQ(c.max_position, 4096);
  EXPECT_DOUBLE_EQ(c.norm_eps, 1e-5);
  EXPECT_EQ(c.rope.type, RopeType::llama3);
  EXPECT_DOUBLE_EQ(c.rope.theta, 500000);
  EXPECT_DOUBLE_EQ(c.rope.factor, 8);
  EXPECT_EQ(c.rope.original_max_position, 1024);
  EXPECT_TRUE(c.tie_embeddings);
  EXPECT_TRUE(c.mlp_bias);
  EXPECT_FALSE(c.attention_bias);
  EXPECT_EQ(c.dtype, Dtype::bf16);
  EXPECT_EQ(c.bos_id, 1);
  EXPECT_THAT(c.eos_ids, ElementsAre(2, 7));
  EXPECT_FALSE(c.sliding_window);
}

TEST(ModelConfig, ReadsTheTransformers5Spelling) {
  const ModelConfig c = loaded(
      config("llama", R"("rope_parameters":{"rope_theta":20000.0,"rope_type":"linear","factor":2.0},"dtype":"float16",)"
                      R"("rope_theta":1.0,"eos_token_id":2,"head_dim":32)"),
      R"({"eos_token_id":[5,6],"bos_token_id":4,"temperature":0.6,"top_p":0.9,"top_k":50,"do_sample":true,)"
      R"("repetition_penalty":1.1,"pad_token_id":0,"transformers_version":"5.0.0"})");
  EXPECT_EQ(c.rope.type, RopeType::linear);
  EXPECT_DOUBLE_EQ(c.rope.theta, 20000);
  EXPECT_DOUBLE_EQ(c.rope.factor, 2);
  EXPECT_EQ(c.dtype, Dtype::f16);
  EXPECT_EQ(c.head_dim, 32);
  EXPECT_THAT(c.eos_ids, ElementsAre(5, 6));  // generation_config.json wins
  EXPECT_EQ(c.bos_id, 4);
  EXPECT_EQ(c.pad_id, 0);
  EXPECT_EQ(c.generation.do_sample, true);
  EXPECT_EQ(c.generation.temperature, 0.6);
  EXPECT_EQ(c.generation.top_p, 0.9);
  EXPECT_EQ(c.generation.top_k, 50);
  EXPECT_EQ(c.generation.repetition_penalty, 1.1);
  EXPECT_FALSE(c.generation.min_p);
}

TEST(ModelConfig, OldRopeScalingSpelledTypeAndDefaultRope) {
  EXPECT_EQ(loaded(config("llama", R"("rope_scaling":{"type":"dynamic","factor":4},"max_position_embeddings":100)"))
                .rope.original_max_position,
            100);
  EXPECT_EQ(loaded(config("llama", R"("rope_scaling":null)")).rope.type, RopeType::plain);
  EXPECT_EQ(loaded(config("qwen2", R"("rope_parameters":{"rope_type":"default","rope_theta":1000000})")).rope.theta,
            1e6);
}

TEST(ModelConfig, MistralSlidesInAllLayersUnlessNull) {
  const ModelConfig c = loaded(config("mistral", R"("sliding_window":128,"num_key_value_heads":1)"));
  EXPECT_EQ(c.sliding_window, 128);
  EXPECT_THAT(c.layer_sliding, ElementsAre(true, true, true));
  EXPECT_FALSE(loaded(config("mistral", R"("sliding_window":null)")).sliding_window);
  EXPECT_EQ(loaded(config("mistral")).sliding_window, 4096);  // the class default
}

TEST(ModelConfig, Qwen2HasQkvBiasAndAnOptionalWindow) {
  const ModelConfig c =
      loaded(config("qwen2", R"("sliding_window":64,"use_sliding_window":false,"max_window_layers":1)"));
  EXPECT_TRUE(c.attention_bias);
  EXPECT_FALSE(c.attention_out_bias);
  EXPECT_FALSE(c.sliding_window);
  const ModelConfig windowed =
      loaded(config("qwen2", R"("sliding_window":64,"use_sliding_window":true,"max_window_layers":1)"));
  EXPECT_EQ(windowed.sliding_window, 64);
  EXPECT_THAT(windowed.layer_sliding, ElementsAre(false, true, true));
  const ModelConfig listed = loaded(config(
      "qwen2",
      R"("sliding_window":64,"use_sliding_window":true,"layer_types":["sliding_attention","full_attention","full_attention"])"));
  EXPECT_THAT(listed.layer_sliding, ElementsAre(true, false, false));
}

TEST(ModelConfig, Qwen3HasQkNormAndItsOwnHeadDim) {
  const ModelConfig c = loaded(config("qwen3", R"("head_dim":24,"attention_bias":true)"));
  EXPECT_TRUE(c.qk_norm);
  EXPECT_EQ(c.head_dim, 24);
  EXPECT_TRUE(c.attention_bias);
  EXPECT_TRUE(c.attention_out_bias);
  EXPECT_EQ(loaded(config("qwen3")).head_dim, 128);
  EXPECT_FALSE(loaded(config("qwen3")).attention_bias);
}

TEST(ModelConfig, Gemma2CapsScoresAndSlidesInEveryOtherLayer) {
  const ModelConfig c = loaded(config("gemma2", R"("num_key_value_heads":2,"head_dim":32,"query_pre_attn_scalar":64,)"
                                                R"("hidden_act":"gelu","hidden_activation":"gelu_pytorch_tanh")"));
  EXPECT_EQ(c.norm, NormKind::rms_plus_one);
  EXPECT_EQ(c.residual, Residual::around);
  EXPECT_EQ(c.activation, Activation::gelu_tanh);
  EXPECT_DOUBLE_EQ(c.embedding_scale, 8.0);
  EXPECT_DOUBLE_EQ(c.score_scale(), 0.125);
  EXPECT_DOUBLE_EQ(c.attention_softcap, 50.0);
  EXPECT_DOUBLE_EQ(c.logit_softcap, 30.0);
  EXPECT_EQ(c.sliding_window, 4096);
  EXPECT_THAT(c.layer_sliding, ElementsAre(true, false, true));
  EXPECT_TRUE(c.tie_embeddings);
  EXPECT_FALSE(c.local_rope);
  EXPECT_DOUBLE_EQ(loaded(config("gemma2", R"("attn_logit_softcapping":null)")).attention_softcap, 0.0);
}

TEST(ModelConfig, Gemma3HasTwoRopesInBothSpellingsAndBesideAVisionPart) {
  const std::string sizes = R"("num_hidden_layers":7,"num_key_value_heads":1,"head_dim":32,"sliding_window":64)";
  const std::string old_spelling = sizes + R"(,"rope_theta":1000000,"rope_local_base_freq":20000,)"
                                           R"("rope_scaling":{"factor":8.0,"rope_type":"linear"})";
  const std::string new_spelling =
      sizes + R"(,"rope_parameters":{"full_attention":{"rope_type":"linear","factor":8.0,"rope_theta":1000000.0},)"
              R"("sliding_attention":{"rope_type":"default","rope_theta":20000.0}})";
  const auto text = [](const std::string& more) {
    return R"({"model_type":"gemma3_text","vocab_size":320,"hidden_size":64,"num_attention_heads":4,)"
           R"("intermediate_size":96,)" +
           more + "}";
  };
  const std::string multimodal = R"({"model_type":"gemma3","eos_token_id":[1,106],"text_config":)" +
                                 text(old_spelling) + R"(,"vision_config":{"hidden_size":8}})";
  for (const std::string& json : {text(old_spelling), text(new_spelling), multimodal}) {
    const ModelConfig c = loaded(json);
    EXPECT_EQ(c.family, ModelFamily::gemma3);
    EXPECT_DOUBLE_EQ(c.rope.theta, 1e6);
    EXPECT_EQ(c.rope.type, RopeType::linear);
    EXPECT_DOUBLE_EQ(c.rope.factor, 8);
    ASSERT_TRUE(c.local_rope);
    EXPECT_DOUBLE_EQ(c.local_rope->theta, 20000);
    EXPECT_EQ(c.local_rope->type, RopeType::plain);
    EXPECT_THAT(c.layer_sliding, ElementsAre(true, true, true, true, true, false, true));
    EXPECT_TRUE(c.qk_norm);
    EXPECT_DOUBLE_EQ(c.attention_softcap, 0);
  }
  EXPECT_THAT(loaded(multimodal).eos_ids, ElementsAre(1, 106));
  const ModelConfig sparse =
      loaded(R"({"model_type":"gemma3","text_config":{"hidden_size":2560,"num_hidden_layers":34,)"
             R"("intermediate_size":10240,"sliding_window":1024}})");
  EXPECT_EQ(sparse.head_dim, 256);
  EXPECT_EQ(sparse.kv_heads, 4);
  EXPECT_EQ(sparse.vocab_size, 262208);
  EXPECT_THAT(error_of(text(old_spelling + R"(,"use_bidirectional_attention":true)")),
              HasSubstr("use_bidirectional_attention"));
}

TEST(ModelConfig, OptHasLearnedPositionsAndMayProjectItsEmbedding) {
  const std::string sizes = R"({"model_type":"opt","vocab_size":320,"hidden_size":64,"num_hidden_layers":2,)"
                            R"("num_attention_heads":4,"ffn_dim":96,"activation_function":"relu")";
  const ModelConfig c = loaded(sizes + "}");
  EXPECT_EQ(c.position_offset, 2);
  EXPECT_EQ(c.rotated(), 0);
  EXPECT_EQ(c.norm, NormKind::layer);
  EXPECT_EQ(c.residual, Residual::before);
  EXPECT_TRUE(c.final_norm);
  EXPECT_FALSE(c.gated);
  EXPECT_TRUE(c.attention_bias && c.attention_out_bias && c.mlp_bias && c.tie_embeddings);
  const ModelConfig post = loaded(sizes + R"(,"do_layer_norm_before":false,"word_embed_proj_dim":32})");
  EXPECT_EQ(post.residual, Residual::after);
  EXPECT_FALSE(post.final_norm);
  EXPECT_EQ(post.embedding_width(), 32);
  EXPECT_THAT(error_of(sizes + R"(,"enable_bias":false})"), HasSubstr("enable_bias"));
}

TEST(ModelConfig, Phi3HasLongropeInBothSpellings) {
  const std::string factors = R"("short_factor":[1,1,1,1,1,1],"long_factor":[1,2,3,4,5,6])";
  const std::string sizes = R"("partial_rotary_factor":0.75,"max_position_embeddings":1024,"sliding_window":200,)";
  for (const std::string& more :
       {sizes + R"("original_max_position_embeddings":64,"rope_scaling":{"type":"longrope",)" + factors + "}",
        sizes + R"("rope_parameters":{"rope_type":"longrope","original_max_position_embeddings":64,)" + factors + "}",
        sizes + R"("original_max_position_embeddings":64,"rope_scaling":{"type":"su",)" + factors + "}"}) {
    const ModelConfig c = loaded(config("phi3", more));
    EXPECT_EQ(c.rope.type, RopeType::longrope);
    EXPECT_EQ(c.rotated(), 12);
    EXPECT_EQ(c.rope.original_max_position, 64);
    EXPECT_THAT(c.rope.long_factor, ElementsAre(1, 2, 3, 4, 5, 6));
    EXPECT_NEAR(c.rope.magnitude, std::sqrt(1 + std::log(16.0) / std::log(64.0)), 1e-12);
    EXPECT_THAT(c.layer_sliding, ElementsAre(true, true, true));
  }
  EXPECT_FALSE(loaded(config("phi3", R"("sliding_window":null)")).sliding_window);
  EXPECT_FALSE(loaded(config("phi3")).sliding_window);
  EXPECT_THAT(error_of(config("phi3", R"("original_max_position_embeddings":64,"rope_scaling":{"type":"longrope",)"
                                      R"("short_factor":[1],"long_factor":[1]})")),
              HasSubstr("short_factor has 1 entries"));
}

TEST(ModelConfig, MixtralRoutesToSomeOfItsExperts) {
  const ModelConfig c =
      loaded(config("mixtral", R"("num_local_experts":4,"num_experts_per_tok":2,"num_key_value_heads":2)"));
  EXPECT_EQ(c.experts, 4);
  EXPECT_EQ(c.experts_used, 2);
  EXPECT_FALSE(c.sliding_window);
  EXPECT_THAT(error_of(config("mixtral", R"("num_local_experts":1,"num_key_value_heads":2)")),
              HasSubstr("num_experts_per_tok"));
}

TEST(ModelConfig, NamesWhatIsNotImplemented) {
  EXPECT_THAT(error_of(config("gpt_neox")), HasSubstr("\"gpt_neox\""));
  EXPECT_THAT(error_of(config("gpt_neox")), HasSubstr("mixtral"));  // and what is implemented
  EXPECT_THAT(error_of(config("llama", R"("rope_scaling":{"rope_type":"yarn","factor":4})")), HasSubstr("\"yarn\""));
  EXPECT_THAT(error_of(config("llama", R"("rope_scaling":{"type":"mrope"})")), HasSubstr("\"mrope\""));
  EXPECT_THAT(error_of(config("llama", R"("hidden_act":"relu6")")), HasSubstr("\"relu6\""));
  EXPECT_THAT(error_of(config("llama", R"("quantization_config":{"quant_method":"bitsandbytes"})")),
              HasSubstr("\"bitsandbytes\" is not implemented (gptq, awq, fp8 and compressed-tensors are)"));
  EXPECT_THAT(error_of(config("llama", R"("partial_rotary_factor":0.5)")), HasSubstr("partial_rotary_factor"));
  EXPECT_THAT(error_of(config("bert", R"("position_embedding_type":"relative_key")")), HasSubstr("position_embedding"));
  EXPECT_THAT(
      error_of(config("qwen2", R"("use_sliding_window":true,"layer_types":["a","full_attention","full_attention"])")),
      HasSubstr("\"a\""));
  EXPECT_EQ(load(config("gpt_neox")).error().kind, core::ErrorKind::unsupported);
}

PackedConfig packed(std::string_view json) {
  return loaded(config("llama", "\"quantization_config\":" + std::string(json))).packed;
}
std::string packed_error(std::string_view json) {
  return error_of(config("llama", "\"quantization_config\":" + std::string(json)));
}

TEST(ModelConfig, SaysHowACheckpointWasQuantised) {
  EXPECT_EQ(loaded(config("llama")).packed.scheme, PackedScheme::none);
  const PackedConfig gptq = packed(R"({"quant_method":"gptq","bits":4,"group_size":64,"desc_act":true,"sym":false})");
  EXPECT_EQ(gptq.scheme, PackedScheme::gptq);
  EXPECT_EQ(gptq.group, 64);
  EXPECT_EQ(gptq.zero_add, 1);
  EXPECT_EQ(packed(R"({"quant_method":"gptq","bits":4,"checkpoint_format":"gptq_v2"})").zero_add, 0);
  EXPECT_EQ(packed(R"({"quant_method":"gptq","bits":4,"group_size":-1})").group, 0);
  const PackedConfig awq = packed(R"({"quant_method":"awq","w_bit":4,"q_group_size":128,"version":"GEMM"})");
  EXPECT_EQ(awq.scheme, PackedScheme::awq);
  EXPECT_EQ(awq.group, 128);
  const PackedConfig block = packed(R"({"quant_method":"fp8","fmt":"e4m3","weight_block_size":[128,64]})");
  EXPECT_EQ(block.scheme, PackedScheme::fp8);
  EXPECT_EQ(block.block_rows, 128);
  EXPECT_EQ(block.block_cols, 64);
  EXPECT_EQ(packed(R"({"quant_method":"compressed-tensors","format":"float-quantized","config_groups":{"group_0":)"
                   R"({"weights":{"num_bits":8,"type":"float","strategy":"channel"}}}})")
                .block_rows,
            0);
  const PackedConfig rows =
      packed(R"({"quant_method":"compressed-tensors","format":"pack-quantized","config_groups":{"group_0":)"
             R"({"weights":{"num_bits":4,"type":"int","strategy":"group","group_size":64,"symmetric":true}}}})");
  EXPECT_EQ(
      packed(R"({"quant_method":"compressed-tensors","format":"int-quantized","config_groups":{"group_0":)"
             R"({"weights":{"num_bits":8,"type":"int","strategy":"channel","symmetric":true},"input_activations":)"
             R"({"num_bits":8,"type":"int","strategy":"token","dynamic":true,"symmetric":true}}}})")
          .scheme,
      PackedScheme::int8);
  EXPECT_EQ(rows.scheme, PackedScheme::rows);
  EXPECT_EQ(rows.group, 64);
}

TEST(ModelConfig, NamesWhatOfAQuantisationIsNotImplemented) {
  EXPECT_THAT(packed_error(R"({"quant_method":"gptq","bits":8})"), HasSubstr("bits other than 4"));
  EXPECT_THAT(packed_error(R"({"quant_method":"gptq","bits":4,"checkpoint_format":"marlin"})"),
              HasSubstr("\"marlin\""));
  EXPECT_THAT(packed_error(R"({"quant_method":"gptq","bits":4,"group_size":12})"), HasSubstr("multiple of 8"));
  EXPECT_THAT(packed_error(R"({"quant_method":"awq","bits":4,"version":"gemv"})"), HasSubstr("\"gemv\""));
  EXPECT_THAT(packed_error(R"({"quant_method":"fp8","fmt":"e5m2"})"), HasSubstr("\"e5m2\""));
  EXPECT_THAT(packed_error(R"({"quant_method":"compressed-tensors","format":"marlin-24"})"),
              HasSubstr("\"marlin-24\""));
  const auto int8 = [](std::string_view weights) {
    return packed_error(R"({"quant_method":"compressed-tensors","format":"int-quantized","config_groups":{"group_0":)"
                        R"({"weights":{)" +
                        std::string(weights) + "}}}}");
  };
  EXPECT_THAT(int8(R"("num_bits":4,"type":"int","strategy":"channel")"), HasSubstr("other than 8-bit int"));
  EXPECT_THAT(int8(R"("num_bits":8,"type":"float","strategy":"channel")"), HasSubstr("other than 8-bit int"));
  EXPECT_THAT(int8(R"("num_bits":8,"type":"int","strategy":"group","group_size":64)"), HasSubstr("\"group\""));
  EXPECT_THAT(int8(R"("num_bits":8,"type":"int","strategy":"channel","symmetric":false)"), HasSubstr("symmetric"));
  EXPECT_THAT(packed_error(R"({"quant_method":"compressed-tensors","format":"pack-quantized","config_groups":)"
                           R"({"group_0":{"weights":{"num_bits":4,"type":"int","strategy":"group","group_size":128,)"
                           R"("symmetric":false}}}})"),
              HasSubstr("symmetric"));
  EXPECT_THAT(packed_error(R"({"quant_method":"compressed-tensors","format":"float-quantized","config_groups":)"
                           R"({"group_0":{"weights":{"num_bits":8,"type":"float","strategy":"group"}}}})"),
              HasSubstr("\"group\""));
}

TEST(ModelConfig, NamesTheFieldThatMakesNoModel) {
  EXPECT_THAT(error_of("[]"), HasSubstr("config.json"));
  EXPECT_THAT(error_of("{\"vocab_size\":1}"), HasSubstr("model_type is missing"));
  EXPECT_THAT(error_of(R"({"model_type":"llama"})"), HasSubstr("vocab_size is missing"));
  EXPECT_THAT(error_of(config("llama", R"("num_key_value_heads":3)")),
              HasSubstr("num_key_value_heads does not divide"));
  EXPECT_THAT(error_of(config("llama", R"("head_dim":7)")), HasSubstr("head_dim is odd"));
  EXPECT_THAT(error_of(config("llama", R"("head_dim":"8")")), HasSubstr("head_dim is not an integer"));
  EXPECT_THAT(error_of(config("llama", R"("rms_norm_eps":-1)")), HasSubstr("rms_norm_eps is -1"));
  EXPECT_THAT(error_of(config("llama", R"("tie_word_embeddings":1)")), HasSubstr("tie_word_embeddings is not true"));
  EXPECT_THAT(error_of(config("llama", R"("eos_token_id":["x"])")), HasSubstr("eos_token_id holds \"x\""));
  EXPECT_THAT(error_of(config("llama", R"("rope_scaling":{"type":"linear"})")), HasSubstr("factor is missing"));
  EXPECT_THAT(error_of(config("llama", R"("rope_scaling":{"type":"llama3","factor":2})")),
              HasSubstr("low_freq_factor"));
  EXPECT_THAT(error_of(R"({"model_type":"llama","vocab_size":1e300,"hidden_size":1})"), HasSubstr("vocab_size"));
  EXPECT_EQ(load_model_config("/nonexistent").error().kind, core::ErrorKind::not_found);
}

struct BertDir {
  TempDir dir;
  BertDir() { dir.write("config.json", config("bert", R"("max_position_embeddings":512,"layer_norm_eps":1e-12)")); }
  core::Result<ModelConfig> load() const { return load_model_config(dir.path()); }
};

TEST(ModelConfig, BareBertPoolsByMean) {
  auto c = BertDir().load();
  ASSERT_TRUE(c) << c.error().message;
  EXPECT_EQ(c->family, ModelFamily::bert);
  EXPECT_EQ(c->pooling, Pooling::mean);
  EXPECT_FALSE(c->normalize);
  EXPECT_EQ(c->max_seq_length, 512);
  EXPECT_EQ(c->type_vocab_size, 2);
  EXPECT_EQ(c->activation, Activation::gelu);
  EXPECT_DOUBLE_EQ(c->norm_eps, 1e-12);
}

TEST(ModelConfig, ReadsSentenceTransformersFiles) {
  BertDir bert;
  bert.dir.write("modules.json",
                 R"([{"idx":0,"name":"0","path":"","type":"sentence_transformers.models.Transformer"},)"
                 R"({"idx":1,"name":"1","path":"1_Pooling","type":"sentence_transformers.models.Pooling"},)"
                 R"({"idx":2,"name":"2","path":"2_Normalize","type":"sentence_transformers.models.Normalize"}])");
  bert.dir.write("1_Pooling/config.json",
                 R"({"word_embedding_dimension":64,"pooling_mode_cls_token":true,"pooling_mode_mean_tokens":false})");
  bert.dir.write("sentence_bert_config.json", R"({"max_seq_length":256,"do_lower_case":false})");
  auto c = bert.load();
  ASSERT_TRUE(c) << c.error().message;
  EXPECT_EQ(c->pooling, Pooling::cls);
  EXPECT_TRUE(c->normalize);
  EXPECT_EQ(c->max_seq_length, 256);

  bert.dir.write("1_Pooling/config.json", R"({"embedding_dimension":64,"pooling_mode":"mean"})");
  bert.dir.write("sentence_bert_config.json", R"({"max_seq_length":4096})");
  EXPECT_EQ(bert.load()->pooling, Pooling::mean);
  EXPECT_EQ(bert.load()->max_seq_length, 512);  // never above the model's positions
}

TEST(ModelConfig, RefusesPoolingsAndModulesItCannotHonour) {
  BertDir bert;
  const std::string pooling = R"([{"path":"1_Pooling","type":"x.Pooling"}])";
  bert.dir.write("modules.json", pooling);
  EXPECT_EQ(bert.load().error().kind, core::ErrorKind::not_found);
  auto error_with = [&](std::string_view text) {
    bert.dir.write("1_Pooling/config.json", text);
    auto c = bert.load();
    return c ? std::string() : c.error().message;
  };
  EXPECT_THAT(error_with(R"({"pooling_mode_weightedmean_tokens":true})"), HasSubstr("weightedmean"));
  EXPECT_THAT(error_with(R"({"pooling_mode_cls_token":true,"pooling_mode_mean_tokens":true})"), HasSubstr("several"));
  EXPECT_THAT(error_with(R"({})"), HasSubstr("chosen by no field"));
  EXPECT_THAT(error_with(R"({"pooling_mode":"median"})"), HasSubstr("median"));
  bert.dir.write("modules.json", R"([{"path":"2_Dense","type":"sentence_transformers.models.Dense"}])");
  EXPECT_THAT(bert.load().error().message, HasSubstr("models.Dense"));
  bert.dir.write("modules.json", R"([{"path":"../../x","type":"x.Pooling"}])");
  EXPECT_THAT(bert.load().error().message, HasSubstr("leaves the directory"));
  bert.dir.write("modules.json", R"({"a":1})");
  EXPECT_THAT(bert.load().error().message, HasSubstr("not a list"));
}

}  // namespace
}  // namespace ganglion::local
