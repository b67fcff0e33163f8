// Attention within packed rows, forward and backward: a task for each row and key-value head, its scores a few queries
// at a time, so that they stay in the core's cache and nothing of their size is kept.
#include <algorithm>
#include <memory>

#include "native.h"

// Floats of a vector register, and the vectors of a tile's row: its sums fill 24 of 32 registers, or 12 of 16.
#if defined(__AVX512F__)
constexpr int64_t W = 16;
constexpr int MOST = 4;
#elif defined(__AVX__)
constexpr int64_t W = 8;
constexpr int MOST = 2;
#elif defined(__aarch64__)
constexpr int64_t W = 4;
constexpr int MOST = 4;
#else
constexpr int64_t W = 4;
constexpr int MOST = 2;
#endif
typedef float vec __attribute__((vector_size(W * 4), aligned(4), may_alias));

constexpr int64_t QUERIES = 48;  // of a block

static inline int64_t padded(int64_t n) { return (n + W - 1) / W * W; }

// c [M, V vectors] (+)= a [M, depth] b [depth, V vectors]; a's entry (i, k) lies at i * a_row + k * a_col.
template <int M, int V>
static inline void tile(const float* a, int64_t a_row, int64_t a_col, const float* b, int64_t b_row, float* c,
                        int64_t c_row, int64_t depth, bool add) {
  vec sum[M][V];
  for (int i = 0; i < M; i++)
    for (int j = 0; j < V; j++) sum[i][j] = add ? *(const vec*)(c + i * c_row + j * W) : vec{};
  for (int64_t k = 0; k < depth; k++) {
    vec right[V];
    for (int j = 0; j < V; j++) right[j] = *(const vec*)(b + k * b_row + j * W);
    for (int i = 0; i < M; i++) {
      const float left = a[i * a_row + k * a_col];
      for (int j = 0; j < V; j++) sum[i][j] += left * right[j];
    }
  }
  for (int i = 0; i < M; i++)
    for (int j = 0; j < V; j++) *(vec*)(c + i * c_row + j * W) = sum[i][j];
}

// A column of tiles, V vectors wide.
template <int V>
static inline void stripe(const float* a, int64_t a_row, int64_t a_col, const float* b, int64_t b_row, float* c,
                          int64_t c_row, int64_t rows, int64_t depth, bool add) {
  constexpr int M = MOST == 2 ? (V == 2 ? 6 : 12) : (V == 4 ? 6 : V == 3 ? 8 : 12);
  int64_t i = 0;
  for (; i + M <= rows; i += M) tile<M, V>(a + i * a_row, a_row, a_col, b, b_row, c + i * c_row, c_row, depth, add);
  for (; i + 3 <= rows; i += 3) tile<3, V>(a + i * a_row, a_row, a_col, b, b_row, c + i * c_row, c_row, depth, add);
  for (; i < rows; i++) tile<1, V>(a + i * a_row, a_row, a_col, b, b_row, c + i * c_row, c_row, depth, add);
}

// c [rows, columns] (+)= a [rows, depth] b [depth, columns]; columns are rounded up to whole vectors.
static void product(const float* a, int64_t a_row, int64_t a_col, const float* b, int64_t b_row, float* c,
                    int64_t c_row, int64_t rows, int64_t columns, int64_t depth, bool add) {
  int64_t left = padded(columns) / W;
  for (; left >= MOST; left -= MOST, b += MOST * W, c += MOST * W)
    stripe<MOST>(a, a_row, a_col, b, b_row, c, c_row, rows, depth, add);
  if (left == 3) stripe<3>(a, a_row, a_col, b, b_row, c, c_row, rows, depth, add);
  if (left == 2) stripe<2>(a, a_row, a_col, b, b_row, c, c_row, rows, depth, add);
  if (left == 1) stripe<1>(a, a_row, a_col, b, b_row, c, c_row, rows, depth, add);
}

// Rows of [tokens, heads, width] of one head, as fp32 [length, padded width] times a factor.
template <typename T>
static void gather(const T* from, int64_t token_stride, int64_t length, int64_t width, float factor, float* to) {
  const int64_t row = padded(width);
  for (int64_t i = 0; i < length; i++) {
#pragma omp simd
    for (int64_t k = 0; k < width; k++) to[i * row + k] = to_float(from[i * token_stride + k]) * factor;
    for (int64_t k = width; k < row; k++) to[i * row + k] = 0.0f;
  }
}

// The way back.
template <typename T>
static void scatter(const float* from, int64_t token_stride, int64_t length, int64_t width, float factor, T* to) {
  const int64_t row = padded(width);
  for (int64_t i = 0; i < length; i++)
#pragma omp simd
    for (int64_t k = 0; k < width; k++) put(to[i * token_stride + k], from[i * row + k] * factor);
}

// [length, padded width] to [width, to_row], 0 behind the end.
static void transpose(const float* from, int64_t length, int64_t width, float* to, int64_t to_row) {
  const int64_t row = padded(width);
  for (int64_t k = 0; k < width; k++) {
    for (int64_t i = 0; i < length; i++) to[k * to_row + i] = from[i * row + k];
    for (int64_t i = length; i < to_row; i++) to[k * to_row + i] = 0.0f;
  }
}

struct Shape {
  int64_t rows, heads, groups, width, causal, span;  // span < 0: no window
  int64_t q_token, k_token, v_token;                 // strides of a token
  int64_t longest_keys;
  float scale;
};

// The keys [low, high) of a row.
struct Seen {
  int64_t low, high;
};

static inline Seen seen_by(const Shape& s, int64_t query, int64_t prefix, int64_t keys) {
  Seen seen = {0, keys};
  if (s.causal) seen.high = std::max(query + 1, prefix);
  if (s.span >= 0) {
    seen.low = std::max<int64_t>(0, query - s.span);
    seen.high = std::min(seen.high, query + s.span + 1);
  }
  seen.high = std::min(seen.high, keys);
  return seen;
}

// Scores of queries [first, end) against the keys that any of them sees, whose bounds are returned.
static Seen scores(const Shape& s, const float* q, const float* k_turned, int64_t turned_row, int64_t first,
                   int64_t end, int64_t prefix, int64_t keys, float* to, int64_t to_row) {
  Seen all = {seen_by(s, first, prefix, keys).low, seen_by(s, end - 1, prefix, keys).high};
  product(q, padded(s.width), 1, k_turned + all.low, turned_row, to, to_row, end - first, all.high - all.low, s.width,
          false);
  return all;
}

// out [queries, heads, width]; logsums [queries, heads]: log of the sum of exp(score), what the backward pass reads.
template <typename T>
static void forward(const T* q, const T* k, const T* v, const int32_t* q_bounds, const int32_t* k_bounds,
                    const int32_t* prefixes, T* out, float* logsums, const Shape& s) {
  const int64_t per_group = s.heads / s.groups, row = padded(s.width), most = padded(s.longest_keys) + W;
#pragma omp parallel
  {
    const std::unique_ptr<float[]> room(new float[most * row * 2 + QUERIES * (2 * row + most)]);
    float *values = room.get(), *turned = values + most * row, *queries = turned + most * row,
          *outs = queries + QUERIES * row, *p = outs + QUERIES * row;
#pragma omp for schedule(dynamic, 1)
    for (int64_t task = 0; task < s.rows * s.groups; task++) {
      const int64_t r = task / s.groups, g = task % s.groups, q0 = q_bounds[r], k0 = k_bounds[r];
      const int64_t length = q_bounds[r + 1] - q0, keys = k_bounds[r + 1] - k0;
      const int64_t prefix = prefixes ? prefixes[r] : 0, turned_row = padded(keys) + W;
      gather(k + k0 * s.k_token + g * s.width, s.k_token, keys, s.width, 1.0f, values);
      transpose(values, keys, s.width, turned, turned_row);
      gather(v + k0 * s.v_token + g * s.width, s.v_token, keys, s.width, 1.0f, values);
      for (int64_t h = g * per_group; h < (g + 1) * per_group; h++) {
        for (int64_t first = 0; first < length; first += QUERIES) {
          const int64_t end = std::min(length, first + QUERIES);
          gather(q + (q0 + first) * s.q_token + h * s.width, s.q_token, end - first, s.width, s.scale, queries);
          const Seen all = scores(s, queries, turned, turned_row, first, end, prefix, keys, p, most);
          float inverse[QUERIES];
          for (int64_t i = 0; i < end - first; i++) {
            const Seen seen = seen_by(s, first + i, prefix, keys);
            const int64_t low = seen.low - all.low, high = seen.high - all.low;
            float *x = p + i * most, top = -INFINITY, sum = 0.0f;
            for (int64_t j = 0; j < low; j++) x[j] = 0.0f;
#pragma omp simd reduction(max : top)
            for (int64_t j = low; j < high; j++) top = x[j] > top ? x[j] : top;
#pragma omp simd reduction(+ : sum)
            for (int64_t j = low; j < high; j++) {
              x[j] = exp_below_zero(x[j] - top);
              sum += x[j];
            }
            for (int64_t j = high; j < all.high - all.low; j++) x[j] = 0.0f;
            inverse[i] = 1.0f / sum;
            logsums[(q0 + first + i) * s.heads + h] = top + std::log(sum);
          }
          product(p, most, 1, values + all.low * row, row, outs, row, end - first, s.width, all.high - all.low, false);
          for (int64_t i = 0; i < end - first; i++)
            scatter(outs + i * row, 0, 1, s.width, inverse[i], out + ((q0 + first + i) * s.heads + h) * s.width);
        }
      }
    }
  }
}

// Scores are computed again. grad, dq [queries, heads, width]; dk, dv [keys, groups, width].
template <typename T>
static void backward(const T* grad, const T* q, const T* k, const T* v, const int32_t* q_bounds,
                     const int32_t* k_bounds, const int32_t* prefixes, const float* logsums, T* dq, T* dk, T* dv,
                     const Shape& s) {
  const int64_t per_group = s.heads / s.groups, row = padded(s.width), most = padded(s.longest_keys) + W;
#pragma omp parallel
  {
    const std::unique_ptr<float[]> room(new float[most * row * 6 + QUERIES * (3 * row + 2 * most)]);
    float *key = room.get(), *value = key + most * row, *key_turned = value + most * row,
          *value_turned = key_turned + most * row, *key_grad = value_turned + most * row,
          *value_grad = key_grad + most * row, *query = value_grad + most * row, *g_out = query + QUERIES * row,
          *query_grad = g_out + QUERIES * row, *p = query_grad + QUERIES * row, *ds = p + QUERIES * most;
#pragma omp for schedule(dynamic, 1)
    for (int64_t task = 0; task < s.rows * s.groups; task++) {
      const int64_t r = task / s.groups, g = task % s.groups, q0 = q_bounds[r], k0 = k_bounds[r];
      const int64_t length = q_bounds[r + 1] - q0, keys = k_bounds[r + 1] - k0;
      const int64_t prefix = prefixes ? prefixes[r] : 0, turned_row = padded(keys) + W;
      gather(k + k0 * s.k_token + g * s.width, s.k_token, keys, s.width, 1.0f, key);
      gather(v + k0 * s.v_token + g * s.width, s.v_token, keys, s.width, 1.0f, value);
      transpose(key, keys, s.width, key_turned, turned_row);
      transpose(value, keys, s.width, value_turned, turned_row);
      std::fill(key_grad, key_grad + keys * row, 0.0f);
      std::fill(value_grad, value_grad + keys * row, 0.0f);
      for (int64_t h = g * per_group; h < (g + 1) * per_group; h++) {
        for (int64_t first = 0; first < length; first += QUERIES) {
          const int64_t end = std::min(length, first + QUERIES), size = end - first;
          gather(q + (q0 + first) * s.q_token + h * s.width, s.q_token, size, s.width, s.scale, query);
          gather(grad + ((q0 + first) * s.heads + h) * s.width, s.heads * s.width, size, s.width, 1.0f, g_out);
          const Seen all = scores(s, query, key_turned, turned_row, first, end, prefix, keys, p, most);
          const int64_t many = all.high - all.low;
          product(g_out, row, 1, value_turned + all.low, turned_row, ds, most, size, many, s.width, false);
          for (int64_t i = 0; i < size; i++) {
            const Seen seen = seen_by(s, first + i, prefix, keys);
            const int64_t low = seen.low - all.low, high = seen.high - all.low;
            const float logsum = logsums[(q0 + first + i) * s.heads + h];
            float *x = p + i * most, *y = ds + i * most, sum = 0.0f;
            for (int64_t j = 0; j < low; j++) x[j] = y[j] = 0.0f;
#pragma omp simd reduction(+ : sum)
            for (int64_t j = low; j < high; j++) {
              x[j] = exp_below_zero(x[j] - logsum);
              sum += x[j] * y[j];
            }
#pragma omp simd
            for (int64_t j = low; j < high; j++) y[j] = x[j] * (y[j] - sum);
            for (int64_t j = high; j < many; j++) x[j] = y[j] = 0.0f;
          }
          product(p, 1, most, g_out, row, value_grad + all.low * row, row, many, s.width, size, true);
          product(ds, 1, most, query, row, key_grad + all.low * row, row, many, s.width, size, true);
          product(ds, most, 1, key + all.low * row, row, query_grad, row, size, s.width, many, false);
          scatter(query_grad, s.heads * s.width, size, s.width, s.scale,
                  dq + ((q0 + first) * s.heads + h) * s.width);
        }
      }
      scatter(key_grad, s.groups * s.width, keys, s.width, 1.0f, dk + (k0 * s.groups + g) * s.width);
      scatter(value_grad, s.groups * s.width, keys, s.width, 1.0f, dv + (k0 * s.groups + g) * s.width);
    }
  }
}

#define KERNELS(T, NAME)                                                                                              \
  extern "C" void forward_##NAME(const T* q, const T* k, const T* v, const int32_t* q_bounds, const int32_t* k_bounds, \
                                 const int32_t* prefixes, T* out, float* logsums, const Shape* shape) {               \
    forward(q, k, v, q_bounds, k_bounds, prefixes, out, logsums, *shape);                                             \
  }                                                                                                                    \
  extern "C" void backward_##NAME(const T* grad, const T* q, const T* k, const T* v, const int32_t* q_bounds,         \
                                  const int32_t* k_bounds, const int32_t* prefixes, const float* logsums, T* dq,      \
                                  T* dk, T* dv, const Shape* shape) {                                                 \
    backward(grad, q, k, v, q_bounds, k_bounds, prefixes, logsums, dq, dk, dv, *shape);                               \
  }

KERNELS(float, fp32)
KERNELS(bf16, bf16)
