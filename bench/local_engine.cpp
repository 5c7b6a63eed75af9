// Decode and prompt speed of the local engine on a Llama-shaped model of random weights that is far larger than the
// caches, next to the bandwidth with which the same threads can read memory. One decode step must read every weight
// once, so bandwidth / weight bytes is the limit for batch 1.
//
//   bench_local_engine [--dir DIR] [--threads N] [--layers N] [--type bf16|int8] [--tokens N] [--json]
//
// The model is written to DIR (default: a folder under the system's temporary directory) and removed at the end.

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "backends/local/engine/engine.hpp"
#include "backends/local/kernels/buffer.hpp"
#include "backends/local/kernels/cpu/dispatch.hpp"
#include "backends/local/kernels/thread_pool.hpp"

namespace {

namespace fs = std::filesystem;
using namespace ganglion::local;
using Clock = std::chrono::steady_clock;

struct Arguments {
  fs::path dir = fs::temp_directory_path() / "ganglion_bench_model";
  int threads = 0;
  int layers = 12;
  std::string type = "int8";
  int tokens = 48;
  bool json = false;
};

constexpr int kHidden = 2048, kInner = 5632, kHeads = 32, kKvHeads = 4, kVocab = 32000;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

Arguments parse(int argc, char** argv) {
  Arguments a;
  for (int i = 1; i < argc; ++i) {
    const std::string key = argv[i];
    if (key == "--json") {
      a.json = true;
      continue;
    }
    if (i + 1 >= argc) {
      std::fprintf(stderr, "%s needs a value\n", key.c_str());
      std::exit(2);
    }
    const std::string value = argv[++i];
    if (key == "--dir") {
      a.dir = value;
    } else if (key == "--threads") {
      a.threads = std::atoi(value.c_str());
    } else if (key == "--layers") {
      a.layers = std::atoi(value.c_str());
    } else if (key == "--type") {
      a.type = value;
    } else if (key == "--tokens") {
      a.tokens = std::atoi(value.c_str());
    } else {
      std::fprintf(stderr, "unknown option %s\n", key.c_str());
      std::exit(2);
    }
  }
  return a;
}

// ---- the model ----

struct TensorPlan {
  std::string name;
  std::int64_t rows, cols;  // cols 0: a vector of ones
};

std::vector<TensorPlan> plan(int layers) {
  std::vector<TensorPlan> out = {{"model.embed_tokens.weight", kVocab, kHidden}, {"model.norm.weight", kHidden, 0}};
  const int head = kHidden / kHeads;
  for (int i = 0; i < layers; ++i) {
    const std::string p = "model.layers." + std::to_string(i) + ".";
    out.push_back({p + "input_layernorm.weight", kHidden, 0});
    out.push_back({p + "post_attention_layernorm.weight", kHidden, 0});
    out.push_back({p + "self_attn.q_proj.weight", kHidden, kHidden});
    out.push_back({p + "self_attn.k_proj.weight", kKvHeads * head, kHidden});
    out.push_back({p + "self_attn.v_proj.weight", kKvHeads * head, kHidden});
    out.push_back({p + "self_attn.o_proj.weight", kHidden, kHidden});
    out.push_back({p + "mlp.gate_proj.weight", kInner, kHidden});
    out.push_back({p + "mlp.up_proj.weight", kInner, kHidden});
    out.push_back({p + "mlp.down_proj.weight", kHidden, kInner});
  }
  return out;
}

// bf16 weights of about N(0, 0.02): three random bytes are summed per weight, from a cheap generator.
void write_weights(const fs::path& file, const std::vector<TensorPlan>& tensors) {
  std::string header = "{";
  std::uint64_t offset = 0;
  for (const TensorPlan& t : tensors) {
    const std::uint64_t bytes = static_cast<std::uint64_t>(t.rows * std::max<std::int64_t>(t.cols, 1)) * 2;
    header += (header.size() > 1 ? "," : "") + ("\"" + t.name + "\":{\"dtype\":\"BF16\",\"shape\":[") +
              std::to_string(t.rows) + (t.cols > 0 ? "," + std::to_string(t.cols) : "") + "],\"data_offsets\":[" +
              std::to_string(offset) + "," + std::to_string(offset + bytes) + "]}";
    offset += bytes;
  }
  header += "}";
  std::ofstream out(file, std::ios::binary);
  const std::uint64_t size = header.size();
  out.write(reinterpret_cast<const char*>(&size), 8);
  out << header;
  std::uint64_t state = 88172645463325252ull;
  std::vector<std::uint16_t> row;
  for (const TensorPlan& t : tensors) {
    row.assign(static_cast<std::size_t>(t.cols > 0 ? t.cols : t.rows), 0x3f80);
    for (std::int64_t r = 0; r < (t.cols > 0 ? t.rows : 1); ++r) {
      for (std::size_t k = 0; t.cols > 0 && k < row.size(); ++k) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        const int sum = static_cast<int>((state & 255) + (state >> 8 & 255) + (state >> 16 & 255)) - 382;
        const float value = static_cast<float>(sum) * (0.02f / 128.0f);
        std::uint32_t bits;
        std::memcpy(&bits, &value, 4);
        row[k] = static_cast<std::uint16_t>(bits >> 16);
      }
      out.write(reinterpret_cast<const char*>(row.data()), static_cast<std::streamsize>(row.size() * 2));
    }
  }
}

void write_model(const Arguments& a) {
  fs::create_directories(a.dir);
  std::ofstream(a.dir / "config.json")
      << "{\"model_type\":\"llama\",\"hidden_size\":" << kHidden << ",\"intermediate_size\":" << kInner
      << ",\"num_hidden_layers\":" << a.layers << ",\"num_attention_heads\":" << kHeads
      << ",\"num_key_value_heads\":" << kKvHeads << ",\"vocab_size\":" << kVocab
      << ",\"max_position_embeddings\":2048,\"rms_norm_eps\":1e-5,\"hidden_act\":\"silu\",\"rope_theta\":10000.0,"
         "\"tie_word_embeddings\":true,\"torch_dtype\":\"bfloat16\",\"bos_token_id\":1,\"eos_token_id\":2}";
  // Ids past the tokenizer's have no text, which is of no interest here.
  std::ofstream(a.dir / "tokenizer.json")
      << R"({"version":"1.0","added_tokens":[],"normalizer":null,"pre_tokenizer":null,"post_processor":null,)"
      << R"("decoder":{"type":"ByteLevel"},"model":{"type":"BPE","vocab":{"a":0,"b":1},"merges":[]}})";
  write_weights(a.dir / "model.safetensors", plan(a.layers));
}

// ---- measuring ----

// Best of several passes over 512 MiB, every thread reading its own part.
double read_bandwidth(int threads) {
  constexpr std::size_t kBytes = std::size_t{512} << 20;
  ThreadPool pool(threads);
  Buffer buffer(kBytes);
  std::memset(buffer.data(), 1, kBytes);
  std::vector<std::uint64_t> sums(static_cast<std::size_t>(pool.size()) * 8);
  double best = 0;
  for (int pass = 0; pass < 8; ++pass) {
    const auto begin = Clock::now();
    pool.split(static_cast<std::int64_t>(kBytes / 4096), 1, [&](std::int64_t from, std::int64_t to, int thread) {
      const auto* p = buffer.as<const std::uint64_t>() + from * 512;
      std::uint64_t s[8] = {};
      for (std::int64_t i = 0; i < (to - from) * 512; i += 8) {
        __builtin_prefetch(p + i + 256);
        for (int j = 0; j < 8; ++j) s[j] += p[i + j];
      }
      for (int j = 0; j < 8; ++j) sums[static_cast<std::size_t>(thread) * 8] += s[j];
    });
    best = std::max(best, static_cast<double>(kBytes) / seconds_since(begin));
  }
  if (sums[0] == 0) std::abort();  // keeps the reads
  return best;
}

class CountingSink : public GenerateSink {
 public:
  explicit CountingSink(int requests) : left_(requests) {}
  void on_event(GenerateEvent&& event) noexcept override {
    if (event.kind == GenerateEvent::Kind::token) return;
    const std::lock_guard lock(mutex_);
    tokens += event.usage.completion_tokens;
    failed = failed || event.kind == GenerateEvent::Kind::error;
    if (--left_ == 0) done_.notify_all();
  }
  void wait() {
    std::unique_lock lock(mutex_);
    done_.wait(lock, [&] { return left_ == 0; });
  }
  int tokens = 0;
  bool failed = false;

 private:
  std::mutex mutex_;
  std::condition_variable done_;
  int left_;
};

struct Speed {
  double tokens_per_second, seconds;
};

// `batch` requests of `prompt` tokens each; the speed counts completion tokens, or prompt tokens when only one is made.
Speed generate(Engine& engine, int batch, int prompt, int tokens) {
  auto sink = std::make_shared<CountingSink>(batch);
  const auto begin = Clock::now();
  for (int i = 0; i < batch; ++i) {
    GenerateRequest request;
    for (int t = 0; t < prompt; ++t) request.prompt.push_back((t * 97 + i * 31) % kVocab);
    request.max_tokens = tokens;
    request.ignore_eos = true;
    request.sampling.temperature = 0;
    if (!engine.submit(std::move(request), sink)) {
      std::fprintf(stderr, "a request was refused\n");
      std::exit(1);
    }
  }
  sink->wait();
  const double seconds = seconds_since(begin);
  if (sink->failed || sink->tokens != batch * tokens) {
    std::fprintf(stderr, "a request failed\n");
    std::exit(1);
  }
  return {(tokens == 1 ? batch * prompt : batch * tokens) / seconds, seconds};
}

}  // namespace

int main(int argc, char** argv) {
  const Arguments a = parse(argc, argv);
  write_model(a);
  EngineOptions options;
  options.dir = a.dir.string();
  options.threads = a.threads;
  options.quantize = a.type == "int8" ? Quantize::int8 : Quantize::none;
  options.batch_max = 8;
  auto begin = Clock::now();
  auto loaded = Engine::load(options);
  if (!loaded) {
    std::fprintf(stderr, "%s\n", loaded.error().message.c_str());
    return 1;
  }
  Engine& engine = **loaded;
  const double load_seconds = seconds_since(begin);
  const double weights = static_cast<double>(engine.stats().weight_bytes);
  const double before = read_bandwidth(a.threads);
  generate(engine, 1, 1, 4);  // warm
  const Speed one = generate(engine, 1, 1, a.tokens);
  const Speed eight = generate(engine, 8, 1, a.tokens / 2);
  const Speed prompt = generate(engine, 1, 256, 1);
  const double bandwidth = std::max(before, read_bandwidth(a.threads));
  std::error_code ignored;
  fs::remove_all(a.dir, ignored);
  const double fraction = one.tokens_per_second * weights / bandwidth;
  const double eight_fraction = eight.tokens_per_second / 8 * weights / bandwidth;
  const std::string level(isa_name(best_isa()));
  if (a.json) {
    std::printf(
        "{\"level\":\"%s\",\"type\":\"%s\",\"weight_bytes\":%.0f,\"read_bytes_per_s\":%.4g,\"decode_1\":%.2f,"
        "\"decode_1_bandwidth_fraction\":%.3f,\"decode_8\":%.2f,\"decode_8_bandwidth_fraction\":%.3f,"
        "\"prompt_256\":%.1f,\"load_s\":%.2f}\n",
        level.c_str(), a.type.c_str(), weights, bandwidth, one.tokens_per_second, fraction, eight.tokens_per_second,
        eight_fraction, prompt.tokens_per_second, load_seconds);
    return 0;
  }
  std::printf("level %s, weights %s, %.0f MB, loaded in %.1f s\n", level.c_str(), a.type.c_str(), weights / 1e6,
              load_seconds);
  std::printf("memory read      %8.1f GB/s\n", bandwidth / 1e9);
  std::printf("decode, batch 1  %8.2f tokens/s  = %3.0f %% of the bandwidth\n", one.tokens_per_second, 100 * fraction);
  std::printf("decode, batch 8  %8.2f tokens/s  = %3.0f %% of the bandwidth, %.1f times batch 1\n",
              eight.tokens_per_second, 100 * eight_fraction, eight.tokens_per_second / one.tokens_per_second);
  std::printf("prompt, 256      %8.2f tokens/s\n", prompt.tokens_per_second);
  return 0;
}
