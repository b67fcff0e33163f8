// Cross entropy of rows of logits, in place: each row becomes its gradient, (softmax - one-hot) x scale.
#include <memory>

#include "native.h"

// logits [rows, words]; bias [words] or null, in the logits' type; targets [rows]; losses [rows], unscaled.
template <typename T>
static void cross_entropy(T* logits, const T* bias, const int64_t* targets, float* losses, int64_t rows, int64_t words,
                          float scale) {
#pragma omp parallel
  {
    const std::unique_ptr<float[]> room(new float[words]);
    float* x = room.get();
#pragma omp for schedule(static)
    for (int64_t row = 0; row < rows; row++) {
      T* s = logits + row * words;
      float top = -INFINITY;
      if (bias) {
#pragma omp simd reduction(max : top)
        for (int64_t i = 0; i < words; i++) {
          x[i] = to_float(s[i]) + to_float(bias[i]);
          top = x[i] > top ? x[i] : top;
        }
      } else {
#pragma omp simd reduction(max : top)
        for (int64_t i = 0; i < words; i++) {
          x[i] = to_float(s[i]);
          top = x[i] > top ? x[i] : top;
        }
      }
      const int64_t target = targets[row];
      const float target_logit = x[target];
      float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
      for (int64_t i = 0; i < words; i++) {
        x[i] = exp_below_zero(x[i] - top);
        sum += x[i];
      }
      losses[row] = top + std::log(sum) - target_logit;
      const float factor = scale / sum;
      const float at_target = x[target] * factor - scale;
#pragma omp simd
      for (int64_t i = 0; i < words; i++) put(s[i], x[i] * factor);
      put(s[target], at_target);
    }
  }
}

extern "C" void cross_entropy_bf16(bf16* logits, const bf16* bias, const int64_t* targets, float* losses, int64_t rows,
                                   int64_t words, float scale) {
  cross_entropy(logits, bias, targets, losses, rows, words, scale);
}

extern "C" void cross_entropy_fp32(float* logits, const float* bias, const int64_t* targets, float* losses,
                                   int64_t rows, int64_t words, float scale) {
  cross_entropy(logits, bias, targets, losses, rows, words, scale);
}
