#pragma once
// Matrix products over packed panels, for whichever vector type V came before. Included inside an anonymous
// namespace by each level's file: nothing here may be shared between files with different flags, so no std templates.

struct LoadF32 {
  using T = float;
  static typename V::F load(const T* p) { return V::load(p); }
};
struct LoadBf16 {
  using T = std::uint16_t;
  static typename V::F load(const T* p) { return V::load_bf16(p); }
};
struct LoadF16 {
  using T = std::uint16_t;
  static typename V::F load(const T* p) { return V::load_f16(p); }
};

constexpr int kPanelVectors = kPanel / V::W;
constexpr int kAheadBytes = 1536;  // software prefetch: the hardware's stops at page borders

// Output vectors of one pass: as many as the registers hold next to mt rows of accumulators.
constexpr int pass_vectors(int mt) {
  int nv = V::kMaxVectors;
  while (nv > 1 && nv * mt > V::kMaxAccumulators) nv /= 2;
  return nv;
}

template <int Bytes>
inline void prefetch_ahead(const void* p) {
  for (int b = 0; b < Bytes; b += 64) __builtin_prefetch(static_cast<const char*>(p) + kAheadBytes + b);
}

// Writes one vector of outputs, `rows` of them valid.
inline void store_outputs(float* y, typename V::F value, const float* bias, int rows) {
  if (rows >= V::W) {
    V::store(y, bias != nullptr ? V::add(value, V::load(bias)) : value);
    return;
  }
  alignas(64) float out[V::W];
  V::store(out, value);
  for (int r = 0; r < rows; ++r) y[r] = out[r] + (bias != nullptr ? bias[r] : 0.0f);
}

template <class L, int MT>
inline void float_panel(const PanelArgs& a) {
  constexpr int NV = pass_vectors(MT);
  for (int first = 0; first < kPanelVectors && first * V::W < a.rows; first += NV) {
    typename V::F acc[MT][NV];
    for (int m = 0; m < MT; ++m) {
      for (int v = 0; v < NV; ++v) acc[m][v] = V::zero();
    }
    const auto* w = static_cast<const typename L::T*>(a.w) + first * V::W;
    const float* x = a.x;
    const int ldx = a.ldx;
    for (int k = a.k; k > 0; --k, x += ldx, w += kPanel) {
      prefetch_ahead<NV * V::W* static_cast<int>(sizeof(*w))>(w);
      typename V::F weight[NV];
      for (int v = 0; v < NV; ++v) weight[v] = L::load(w + v * V::W);
      for (int m = 0; m < MT; ++m) {
        const typename V::F value = V::set1(x[m]);
        for (int v = 0; v < NV; ++v) acc[m][v] = V::fma(value, weight[v], acc[m][v]);
      }
    }
    for (int v = 0; v < NV; ++v) {
      const int row = (first + v) * V::W;
      if (row >= a.rows) break;
      const float* bias = a.bias != nullptr ? a.bias + row : nullptr;
      for (int m = 0; m < MT; ++m) store_outputs(a.y + m * a.ldy + row, acc[m][v], bias, a.rows - row);
    }
  }
}

template <int MT>
inline void int8_panel(const PanelArgsI8& a) {
  constexpr int NV = pass_vectors(MT);
  constexpr int kGroup4 = kQuantGroup / 4;
  for (int first = 0; first < kPanelVectors && first * V::W < a.rows; first += NV) {
    typename V::F total[MT][NV];
    for (int m = 0; m < MT; ++m) {
      for (int v = 0; v < NV; ++v) total[m][v] = V::zero();
    }
    const auto* w = static_cast<const std::uint8_t*>(a.w) + first * V::W * 4;
    const std::int32_t* x = a.x;
    const int ldx = a.ldx;
    for (int k4 = 0, group = 0; k4 < a.k4; k4 += kGroup4, ++group) {
      typename V::I acc[MT][NV];
      for (int m = 0; m < MT; ++m) {
        for (int v = 0; v < NV; ++v) acc[m][v] = V::i_set1(V::kUnsignedWeights ? a.x_fix[group * ldx + m] : 0);
      }
      const int steps = a.k4 - k4 < kGroup4 ? a.k4 - k4 : kGroup4;
      for (int step = 0; step < steps; ++step, x += ldx, w += kPanel * 4) {
        prefetch_ahead<NV * V::W * 4>(w);
        typename V::W8 weight[NV];
        for (int v = 0; v < NV; ++v) weight[v] = V::load_w8(w + v * V::W * 4);
        for (int m = 0; m < MT; ++m) {
          for (int v = 0; v < NV; ++v) acc[m][v] = V::dot4(acc[m][v], weight[v], x[m]);
        }
      }
      for (int m = 0; m < MT; ++m) {
        const typename V::F scale = V::set1(a.x_scale[group * ldx + m]);
        for (int v = 0; v < NV; ++v) total[m][v] = V::fma(scale, V::to_float(acc[m][v]), total[m][v]);
      }
    }
    for (int v = 0; v < NV; ++v) {
      const int row = (first + v) * V::W;
      if (row >= a.rows) break;
      const float* bias = a.bias != nullptr ? a.bias + row : nullptr;
      const typename V::F scale = V::load(a.w_scale + row);  // padded to whole panels
      for (int m = 0; m < MT; ++m) {
        store_outputs(a.y + m * a.ldy + row, V::mul(total[m][v], scale), bias, a.rows - row);
      }
    }
  }
}

template <class L>
void float_panel_any(const PanelArgs& a) {
  switch (a.mt) {
    case 1:
      return float_panel<L, 1>(a);
    case 2:
      return float_panel<L, 2>(a);
    case 3:
      return float_panel<L, 3>(a);
    case 4:
      return float_panel<L, 4>(a);
    case 5:
      return float_panel<L, 5>(a);
    case 6:
      return float_panel<L, 6>(a);
    case 7:
      return float_panel<L, 7>(a);
    default:
      return float_panel<L, 8>(a);
  }
}

void int8_panel_any(const PanelArgsI8& a) {
  switch (a.mt) {
    case 1:
      return int8_panel<1>(a);
    case 2:
      return int8_panel<2>(a);
    case 3:
      return int8_panel<3>(a);
    case 4:
      return int8_panel<4>(a);
    case 5:
      return int8_panel<5>(a);
    case 6:
      return int8_panel<6>(a);
    case 7:
      return int8_panel<7>(a);
    default:
      return int8_panel<8>(a);
  }
}
