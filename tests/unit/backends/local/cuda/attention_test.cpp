// Rotary embedding, paging and attention against plain attention in double, over the model shapes that occur.

#include <algorithm>
#include <numeric>

#include "backends/local/kernels/cuda/general.hpp"
#include "tests/unit/backends/local/cuda/device_fixture.hpp"

namespace ganglion::local {
namespace {

struct AttentionCase {
  int heads, kv_heads, dim, window;
  cuda::KvFormat format;
  bool norm;
  float cap = 0;
  int rotated = -1;  // of a head, the first so many elements; below 0: all, by the usual kernel where it can
};

class AttentionTest : public DeviceTest, public testing::WithParamInterface<AttentionCase> {
 protected:
  static constexpr int kLayers = 2, kLayer = 1, kPages = 64;

  // One sequence's qkv rows, appended to its pages in chunks; the last chunk's rows are attended.
  struct Sequence {
    int length = 0;
    std::vector<std::int32_t> pages;
    std::vector<float> qkv;  // [length][columns], rounded to bf16 unless wide()
  };

  void prepare() {
    const AttentionCase c = GetParam();
    columns_ = (c.heads + 2 * c.kv_heads) * c.dim;
    stride_ = static_cast<int>(cuda::padded(columns_, 16));
    kv_ = {.layers = kLayers,
           .kv_heads = c.kv_heads,
           .head_dim = c.dim,
           .head_width = cuda::head_width(c.dim),
           .format = c.format};
    kv_.page_bytes = cuda::kv_page_bytes(kLayers, c.kv_heads, kv_.head_width, c.format);
    store_ = room(static_cast<std::size_t>(kPages * kv_.page_bytes));  // poisoned: NaN
    kv_.base = store_.data();
    q_norm_ = normal(static_cast<std::size_t>(c.dim), 1.0f);
    k_norm_ = normal(static_cast<std::size_t>(c.dim), 1.0f);
    next_.resize(kPages);
    std::iota(next_.begin(), next_.end(), 0);
    std::shuffle(next_.begin(), next_.end(), random);
  }

  Sequence sequence(int length) {
    Sequence s{length, {}, {}};
    for (int t = 0; t < length; t += 16) s.pages.push_back(next_.back()), next_.pop_back();
    for (float v : normal(static_cast<std::size_t>(length * columns_), 1.0f))
      s.qkv.push_back(wide() ? v : reference::round_to_bf16(v));
    return s;
  }

  std::vector<float> cos_sin(int position, bool sine) const {
    std::vector<float> out;
    for (int i = 0; i < rotated() / 2; ++i) {
      const float angle = static_cast<float>(position) *
                          std::pow(10000.0f, -2.0f * static_cast<float>(i) / static_cast<float>(rotated()));
      out.push_back(sine ? std::sin(angle) : std::cos(angle));
    }
    return out;
  }

  // Queries, keys and values come as fp32.
  static bool wide() { return GetParam().format == cuda::KvFormat::fp16; }
  int rotated() const { return GetParam().rotated < 0 ? GetParam().dim : GetParam().rotated; }
  cudaError_t append(const cuda::RotateAppend& a) const {
    return GetParam().rotated < 0 && GetParam().dim <= 128 ? cuda::rotate_append(queue(), a)
                                                           : cuda::rotate_append_general(queue(), a, rotated() / 2);
  }

  // Head `head` of a token's row, normalised and rotated as the model would.
  reference::Row head_of(const Sequence& s, int token, int head) const {
    const AttentionCase c = GetParam();
    reference::Row x;
    for (int i = 0; i < c.dim; ++i) x.push_back(s.qkv[static_cast<std::size_t>(token * columns_ + head * c.dim + i)]);
    if (head >= c.heads + c.kv_heads) return x;
    if (c.norm) {
      const auto& w = head < c.heads ? q_norm_ : k_norm_;
      x = reference::rms_norm(x, reference::Row(w.begin(), w.end()), 1e-6);
    }
    const auto cos = cos_sin(token, false), sin = cos_sin(token, true);
    const reference::Row first(x.begin(), x.begin() + rotated());
    const auto turned = reference::rope(first, {cos.begin(), cos.end()}, {sin.begin(), sin.end()});
    std::ranges::copy(turned, x.begin());
    return x;
  }

  std::vector<double> want(const Sequence& s, int token) const {
    const AttentionCase c = GetParam();
    std::vector<double> out;
    for (int h = 0; h < c.heads; ++h) {
      const int kv = h / (c.heads / c.kv_heads);
      std::vector<reference::Row> keys, values;
      for (int t = 0; t <= token; ++t) {
        keys.push_back(head_of(s, t, c.heads + kv));
        values.push_back(head_of(s, t, c.heads + c.kv_heads + kv));
      }
      auto q = head_of(s, token, h);
      for (double& v : q) v /= std::sqrt(static_cast<double>(c.dim));
      const int low = c.window > 0 ? std::max(0, token + 1 - c.window) : 0;
      for (double v : reference::attention(q, keys, values, low, token + 1, c.cap)) out.push_back(v);
    }
    return out;
  }

  // Appends tokens [from, to) of each sequence in one call, then attends them; one output row each, in order. By the
  // prefill kernel, or with `splits` by the decode kernel: a row a block, or with `few` as many as it takes.
  std::vector<float> step(const std::vector<Sequence*>& sequences, const std::vector<std::pair<int, int>>& ranges,
                          int splits, bool few = false) {
    const AttentionCase c = GetParam();
    std::vector<float> rows, cos, sin;
    std::vector<std::int32_t> positions, row_pages, from, table;
    std::vector<cuda::PrefillTile> tiles;
    for (std::size_t i = 0; i < sequences.size(); ++i) {
      const Sequence& s = *sequences[i];
      const auto [begin, end] = ranges[i];
      const auto at = static_cast<std::int32_t>(table.size());
      table.insert(table.end(), s.pages.begin(), s.pages.end());
      const int each = few ? cuda::few_rows(c.heads, c.kv_heads) : cuda::kPrefillRows;
      for (int t = begin; t < end; t += each) {
        tiles.push_back({static_cast<int>(positions.size()) + t - begin, std::min(each, end - t), t, at});
      }
      if (few) tiles.push_back({0, 0, 0, 0});  // pads
      for (int t = begin; t < end; ++t) {
        positions.push_back(t), row_pages.push_back(s.pages[static_cast<std::size_t>(t / 16)]), from.push_back(at);
        for (int k = 0; k < stride_; ++k)
          rows.push_back(k < columns_ ? s.qkv[static_cast<std::size_t>(t * columns_ + k)] : 0);
        for (float v : cos_sin(t, false)) cos.push_back(v);
        for (float v : cos_sin(t, true)) sin.push_back(v);
      }
    }
    const int count = static_cast<int>(positions.size()), width = kv_.head_width;
    const auto qkv = wide() ? up(rows) : up(to_bf16(rows)), cos_at = up(cos), sin_at = up(sin),
               positions_at = up(positions), pages_at = up(row_pages), from_at = up(from), table_at = up(table),
               tiles_at = up(tiles), q_norm = up(q_norm_), k_norm = up(k_norm_);
    const auto query = room(static_cast<std::size_t>(count * c.heads * width) * 2);
    const int out_stride = static_cast<int>(cuda::padded(c.heads * c.dim, 128));
    const auto out = room(static_cast<std::size_t>(count * out_stride) * 2);
    run(append({.qkv = qkv.data(),
                .wide = wide(),
                .stride = stride_,
                .rows = count,
                .heads = c.heads,
                .layer = kLayer,
                .kv = kv_,
                .cos = rotated() > 0 ? cos_at.as<float>() : nullptr,
                .sin = rotated() > 0 ? sin_at.as<float>() : nullptr,
                .q_norm = c.norm ? q_norm.as<float>() : nullptr,
                .k_norm = c.norm ? k_norm.as<float>() : nullptr,
                .eps = 1e-6f,
                .positions = positions_at.as<std::int32_t>(),
                .pages = pages_at.as<std::int32_t>(),
                .query = query.data()}));
    const float scale = 1.0f / std::sqrt(static_cast<float>(c.dim));
    if (splits == 0) {
      run(cuda::attend_prefill(queue(), {.query = query.data(),
                                         .kv = kv_,
                                         .layer = kLayer,
                                         .heads = c.heads,
                                         .window = c.window,
                                         .scale = scale,
                                         .softcap = c.cap,
                                         .tiles = tiles_at.as<cuda::PrefillTile>(),
                                         .tile_count = static_cast<int>(tiles.size()),
                                         .page_table = table_at.as<std::int32_t>(),
                                         .out = out.data(),
                                         .out_stride = out_stride}));
    } else {
      const int blocks = cuda::decode_blocks(few ? static_cast<int>(tiles.size()) : count, c.heads, c.kv_heads);
      const auto partial = room(static_cast<std::size_t>(cuda::decode_partial_floats(blocks, width, splits)) * 4);
      const auto arrived = room(static_cast<std::size_t>(blocks) * 4, 0);
      run(cuda::attend_decode(queue(), {.query = query.data(),
                                        .kv = kv_,
                                        .layer = kLayer,
                                        .heads = c.heads,
                                        .rows = count,
                                        .window = c.window,
                                        .scale = scale,
                                        .softcap = c.cap,
                                        .positions = positions_at.as<std::int32_t>(),
                                        .page_from = from_at.as<std::int32_t>(),
                                        .page_table = table_at.as<std::int32_t>(),
                                        .out = out.data(),
                                        .out_stride = out_stride,
                                        .splits = splits,
                                        .partial = partial.as<float>(),
                                        .arrived = arrived.as<std::uint32_t>(),
                                        .tiles = few ? tiles_at.as<cuda::PrefillTile>() : nullptr,
                                        .tile_count = static_cast<int>(tiles.size())}));
      const auto counters = down<std::uint32_t>(arrived.data(), static_cast<std::size_t>(blocks));
      EXPECT_EQ(std::count(counters.begin(), counters.end(), 0u), static_cast<std::ptrdiff_t>(counters.size()));
    }
    std::vector<float> result;
    const auto bits = down<std::uint16_t>(out.data(), static_cast<std::size_t>(count * out_stride));
    for (int r = 0; r < count; ++r) {
      for (int i = 0; i < c.heads * c.dim; ++i)
        result.push_back(bf16_value(bits[static_cast<std::size_t>(r * out_stride + i)]));
    }
    return result;
  }

  double tolerance() const {
    // Half a step of e4m3 is a sixteenth; bf16 keeps 8 bits, and is what comes out in any case. int8: as on the CPU,
    // and bf16's on top.
    switch (GetParam().format) {
      case cuda::KvFormat::fp16:
        return 3e-3;
      case cuda::KvFormat::fp8:
        return 6.25e-2;
      case cuda::KvFormat::int8:
        return 2e-2;
      case cuda::KvFormat::bf16:
        break;
    }
    return 1.2e-2;  // 9.8e-3 seen for narrow heads whose norm makes scores sharp
  }

  int columns_ = 0, stride_ = 0;
  cuda::KvLayout kv_;
  DeviceBuffer store_;
  std::vector<float> q_norm_, k_norm_;
  std::vector<std::int32_t> next_;
};

constexpr auto kBf16 = cuda::KvFormat::bf16, kFp16 = cuda::KvFormat::fp16, kFp8 = cuda::KvFormat::fp8,
               kInt8 = cuda::KvFormat::int8;
INSTANTIATE_TEST_SUITE_P(
    Shapes, AttentionTest,
    testing::Values(AttentionCase{4, 4, 128, 0, kBf16, false},  // multi-head
                    AttentionCase{8, 2, 128, 0, kBf16, true},   // grouped, head norms
                    AttentionCase{16, 1, 64, 0, kBf16, false},  // more heads than a tile
                    AttentionCase{4, 1, 24, 0, kBf16, true},    // padded width
                    AttentionCase{6, 3, 80, 20, kBf16, false},  // window
                    AttentionCase{4, 2, 32, 5, kBf16, false},   //
                    AttentionCase{8, 8, 128, 0, kFp8, false},   // e4m3 pages
                    AttentionCase{4, 2, 64, 33, kFp8, false},
                    AttentionCase{8, 4, 256, 0, kBf16, true, 3.0f},  // wide heads, capped scores
                    AttentionCase{4, 1, 256, 40, kFp8, false}, AttentionCase{8, 2, 128, 33, kBf16, false, 1.0f},
                    AttentionCase{6, 2, 96, 0, kBf16, false, 0, 72},  // rotated in part
                    AttentionCase{4, 4, 64, 0, kBf16, false, 0, 0},   // not at all
                    AttentionCase{8, 8, 128, 0, kInt8, false},        // int8 pages
                    AttentionCase{8, 2, 64, 33, kInt8, true}, AttentionCase{4, 1, 24, 0, kInt8, false},
                    AttentionCase{16, 1, 80, 0, kInt8, false, 1.0f}, AttentionCase{8, 4, 256, 0, kInt8, true, 3.0f},
                    AttentionCase{4, 1, 256, 40, kInt8, false}, AttentionCase{6, 2, 96, 0, kInt8, false, 0, 72},
                    AttentionCase{8, 8, 128, 0, kFp16, false},  // fp16 pages
                    AttentionCase{8, 2, 64, 33, kFp16, true}, AttentionCase{4, 1, 24, 0, kFp16, false},
                    AttentionCase{16, 1, 80, 0, kFp16, false, 1.0f}, AttentionCase{8, 4, 256, 0, kFp16, true, 3.0f},
                    AttentionCase{4, 1, 256, 40, kFp16, false}, AttentionCase{6, 2, 96, 0, kFp16, false, 0, 72}));

TEST_P(AttentionTest, ChunksAndDecodeAgreeWithPlainAttention) {
  if (arena == nullptr) GTEST_SKIP();
  prepare();
  auto a = sequence(150), b = sequence(17), c = sequence(77);
  // Prompts in two chunks, the second beside another sequence's first.
  const auto check_rows = [&](const std::vector<float>& got, const Sequence& s, int from, int to,
                              std::size_t first_row) {
    const auto width = static_cast<std::size_t>(GetParam().heads * GetParam().dim);
    std::vector<float> mine(
        got.begin() + static_cast<std::ptrdiff_t>(first_row * width),
        got.begin() + static_cast<std::ptrdiff_t>((first_row + static_cast<std::size_t>(to - from)) * width));
    std::vector<double> all;
    for (int t = from; t < to; ++t) {
      for (double v : want(s, t)) all.push_back(v);
    }
    EXPECT_LT(relative_l2(mine, all), tolerance()) << "tokens " << from << " to " << to << " of " << s.length;
  };
  const auto first = step({&a}, {{0, 70}}, 0);
  check_rows(first, a, 0, 70, 0);
  const auto second = step({&a, &b, &c}, {{70, 149}, {0, 16}, {0, 76}}, 0);
  check_rows(second, a, 70, 149, 0);
  check_rows(second, b, 0, 16, 79);
  check_rows(second, c, 0, 76, 95);
  for (int splits : {1, 2, 8}) {
    const auto decoded = step({&a, &b, &c}, {{149, 150}, {16, 17}, {76, 77}}, splits);
    check_rows(decoded, a, 149, 150, 0);
    check_rows(decoded, b, 16, 17, 1);
    check_rows(decoded, c, 76, 77, 2);
  }
  // The ends of the prompts again, a few rows a block: what the pages hold is written once more, the same.
  for (int splits : {1, 2, 4}) {
    const auto again = step({&a, &b, &c}, {{131, 150}, {0, 17}, {76, 77}}, splits, true);
    check_rows(again, a, 131, 150, 0);
    check_rows(again, b, 0, 17, 19);
    check_rows(again, c, 76, 77, 36);
  }
}

TEST_P(AttentionTest, PaddingRowsTouchNothing) {
  if (arena == nullptr) GTEST_SKIP();
  prepare();
  const AttentionCase c = GetParam();
  const auto before = down<std::uint8_t>(store_.data(), store_.size());
  const auto qkv = up(to_bf16(normal(static_cast<std::size_t>(stride_), 1.0f)));
  const auto angles = up(cos_sin(0, false));
  const auto position = up(std::vector<std::int32_t>{-1}), zero = up(std::vector<std::int32_t>{0});
  const auto query = room(static_cast<std::size_t>(c.heads * kv_.head_width) * 2);
  run(append({.qkv = qkv.data(),
              .stride = stride_,
              .rows = 1,
              .heads = c.heads,
              .layer = 0,
              .kv = kv_,
              .cos = angles.as<float>(),
              .sin = angles.as<float>(),
              .positions = position.as<std::int32_t>(),
              .pages = zero.as<std::int32_t>(),
              .query = query.data()}));
  EXPECT_EQ(down<std::uint8_t>(store_.data(), store_.size()), before);
}

// By a token's key or value that is not a number, pages of every format give what is none, as bf16 pages do. Such a key
// is not seen by the tokens before it; such a value is by those in its step, as nothing times it is no number either.
TEST_P(AttentionTest, WhatIsNotANumberShows) {
  if (arena == nullptr) GTEST_SKIP();
  if (GetParam().norm) GTEST_SKIP() << "the norm spreads it over the whole head";
  if (GetParam().format == kFp8 && capability < 90) {
    GTEST_SKIP() << "e4m3's not-a-number is read as 480: its own row shows in its query";
  }
  prepare();
  const AttentionCase c = GetParam();
  // The last of 20 shares its page with others, the last of 17 is alone in its own, and so in a warp's or a block's
  // part.
  for (const auto& [tokens, in_value] : {std::pair{20, false}, {20, true}, {17, false}}) {
    auto s = sequence(tokens);
    const int last = tokens - 1, head = c.heads + (in_value ? c.kv_heads : 0);
    s.qkv[static_cast<std::size_t>(last * columns_ + head * c.dim + 1)] = std::nanf("");
    for (const int splits : {0, 1, 2}) {
      const auto out = step({&s}, {{0, tokens}}, splits);
      for (int i = 0; i < c.dim; ++i) {  // of the first query head, which sees the first key head
        // A value has its number for every element where the head has one scale; elsewhere only its own is lost.
        if (in_value && c.format != kInt8 && i != 1) continue;
        EXPECT_TRUE(std::isnan(out[static_cast<std::size_t>(last * c.heads * c.dim + i)])) << in_value << " " << i;
      }
      if (in_value) continue;
      const auto before = static_cast<std::size_t>((last - 1) * c.heads * c.dim);
      EXPECT_FALSE(std::isnan(out[before])) << "the row before does not see it";
    }
  }
}

// What fp16 has no room for becomes its largest number: finite, and so are the answers.
TEST_P(AttentionTest, WhatFp16HasNoRoomForIsCut) {
  if (arena == nullptr) GTEST_SKIP();
  if (GetParam().format != kFp16 || GetParam().norm || GetParam().window > 0) GTEST_SKIP() << "fp16, as it comes";
  prepare();
  const AttentionCase c = GetParam();
  constexpr float kFar = 1e6f, kMost = 65504.0f;
  constexpr int tokens = 20;
  auto s = sequence(tokens);
  const auto at = [&](int token, int head, int i) -> float& {
    return s.qkv[static_cast<std::size_t>(token * columns_ + head * c.dim + i)];
  };
  // All queries of the first head point as the first key does, the other keys the other way: only its value counts,
  // where scores are not capped. The last element is turned by next to nothing.
  for (int t = 0; t < tokens; ++t) {
    for (int i = 0; i < c.dim; ++i) at(t, 0, i) = at(t, c.heads, i) = 0;
    at(t, 0, c.dim - 1) = kFar, at(t, c.heads, c.dim - 1) = t == 0 ? kFar : -kFar;
  }
  at(0, c.heads + c.kv_heads, 0) = kFar, at(0, c.heads + c.kv_heads, 1) = -kFar;
  for (const int splits : {0, 1, 2}) {
    const auto out = step({&s}, {{0, tokens}}, splits);
    for (const float v : out) ASSERT_TRUE(std::isfinite(v)) << splits;
    for (int t = 0; t < (c.cap > 0 ? 1 : tokens); ++t) {
      const auto row = static_cast<std::size_t>(t * c.heads * c.dim);
      EXPECT_NEAR(out[row], kMost, kMost / 128) << splits << " " << t;
      EXPECT_NEAR(out[row + 1], -kMost, kMost / 128) << splits << " " << t;
    }
  }
}

// Needs no device: what a page holds in each format.
TEST(KvLayout, EightBitsHalveAPageAndInt8AddsItsScales) {
  using cuda::kv_page_bytes, cuda::KvFormat;
  const auto bf16 = kv_page_bytes(32, 32, 128, KvFormat::bf16);  // Llama-2-7B's
  EXPECT_EQ(bf16, std::int64_t{8} << 20);
  EXPECT_EQ(kv_page_bytes(32, 32, 128, KvFormat::fp8), bf16 / 2);
  EXPECT_EQ(kv_page_bytes(32, 32, 128, KvFormat::int8), bf16 / 2 + std::int64_t{32} * 32 * cuda::kPageTokens * 2 * 4);
  // Vectors of 16 bytes are read from the tiles, and floats behind them.
  for (const int width : {32, 64, 96, 128, 256}) EXPECT_EQ(cuda::kv_tile_bytes(width, KvFormat::int8) % 64, 0);
}

}  // namespace
}  // namespace ganglion::local
