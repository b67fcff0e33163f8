// One step of Adam or AdamW over one parameter, in place: gradient, moments and weights are read once and written once.
#include "native.h"

struct Numbers {
  float gradient_factor, pull, beta1, rest1, beta2, rest2, eps, rate, root_unbias, keep;
};

static inline void update(float* master, const float* gradient, float* first, float* second, bf16* copy, int64_t start,
                          int64_t end, const Numbers& k) {
#pragma omp simd
  for (int64_t i = start; i < end; i++) {
    const float g = gradient[i] * k.gradient_factor + k.pull * master[i];
    first[i] = k.beta1 * first[i] + k.rest1 * g;
    second[i] = k.beta2 * second[i] + k.rest2 * g * g;
    master[i] = master[i] * k.keep - k.rate * first[i] / (std::sqrt(second[i]) * k.root_unbias + k.eps);
  }
  if (copy) {
#pragma omp simd
    for (int64_t i = start; i < end; i++) put(copy[i], master[i]);
  }
}

// master, gradient, first, second [size], fp32; copy [size] or null, the weights in bf16.
extern "C" void adamw(float* master, const float* gradient, float* first, float* second, bf16* copy, int64_t size,
                      const Numbers* numbers) {
  const Numbers k = *numbers;
#pragma omp parallel for schedule(static)
  for (int64_t start = 0; start < size; start += 1024) {
    update(master, gradient, first, second, copy, start, start + 1024 < size ? start + 1024 : size, k);
  }
}

// The same of [rows, width], where rows that were never read [rows] have neither gradient nor moments: they decay.
extern "C" void adamw_rows(float* master, const float* gradient, float* first, float* second, bf16* copy,
                           const bool* read, int64_t rows, int64_t width, const Numbers* numbers) {
  const Numbers k = *numbers;
#pragma omp parallel for schedule(static, 64)
  for (int64_t row = 0; row < rows; row++) {
    const int64_t start = row * width, end = start + width;
    if (read[row]) {
      update(master, gradient, first, second, copy, start, end, k);
    } else if (k.keep != 1.0f) {
#pragma omp simd
      for (int64_t i = start; i < end; i++) master[i] *= k.keep;
      if (copy) {
#pragma omp simd
        for (int64_t i = start; i < end; i++) put(copy[i], master[i]);
      }
    }
  }
}
