// Softmax of attention scores, in place: each row's visible keys become exp(s - max), the others 0.
#include "native.h"

// scores [rows, keys]; row (r, h, b) of [R, H, B] sees the keys from low[r or 0, b] to high[r or 0, b], given from
// first_key on. A mask of one row serves every r. inverse [rows]: one over each row's sum.
template <typename T>
static void softmax(T* scores, float* inverse, const int32_t* low, int64_t low_rows, const int32_t* high,
                    int64_t high_rows, int64_t num_rows, int64_t heads, int64_t queries, int64_t keys,
                    int64_t first_key, float scale) {
  const int64_t total = num_rows * heads * queries;
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < total; row++) {
    const int64_t r = row / (heads * queries), b = row % queries;
    int64_t begin = low ? low[(low_rows == 1 ? 0 : r) * queries + b] - first_key : 0;
    int64_t end = high ? high[(high_rows == 1 ? 0 : r) * queries + b] - first_key : keys;
    begin = begin < 0 ? 0 : begin;
    end = end > keys ? keys : end;
    T* s = scores + row * keys;
    float top = -INFINITY;
#pragma omp simd reduction(max : top)
    for (int64_t i = begin; i < end; i++) {
      const float x = to_float(s[i]);
      top = x > top ? x : top;
    }
    top *= scale;
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = begin; i < end; i++) {
      const float w = exp_below_zero(to_float(s[i]) * scale - top);
      sum += w;
      put(s[i], w);
    }
    if (begin > 0) std::memset(s, 0, begin * sizeof(T));
    if (end < keys) std::memset(s + end, 0, (keys - end) * sizeof(T));
    inverse[row] = 1.0f / sum;
  }
}

extern "C" void softmax_bf16(bf16* s, float* inverse, const int32_t* low, int64_t low_rows, const int32_t* high,
                             int64_t high_rows, int64_t rows, int64_t heads, int64_t queries, int64_t keys,
                             int64_t first_key, float scale) {
  softmax(s, inverse, low, low_rows, high, high_rows, rows, heads, queries, keys, first_key, scale);
}

extern "C" void softmax_fp32(float* s, float* inverse, const int32_t* low, int64_t low_rows, const int32_t* high,
                             int64_t high_rows, int64_t rows, int64_t heads, int64_t queries, int64_t keys,
                             int64_t first_key, float scale) {
  softmax(s, inverse, low, low_rows, high, high_rows, rows, heads, queries, keys, first_key, scale);
}
