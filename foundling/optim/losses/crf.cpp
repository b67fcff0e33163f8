// Linear-chain conditional random fields over packed rows: log Z, its gradient, and the likeliest tags.
//
// Shapes: M words of R rows, C tags; W = C rounded up to whole vectors: what is behind C is a tag that never occurs.
// scores [C x C + 2 C]: of neighbours, of first and of last tags.
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include "native.h"

// Minus infinity where logarithms are added, so that gradients are numbers.
static constexpr double FORBIDDEN = -1e30;
// Nats between a score that is allowed and the highest, up to which a state that can be reached stays above 0:
// e^-230 x least is within fp64's range, so 0 always means impossible.
static constexpr double SPREAD = 230.0;

// e^x for x <= 0, 0 below -708; NaN stays NaN. Taylor's series on half a binade: its rest is below a unit in the last
// place.
static inline double exp_below_zero(double x) {
  const double least = -708.0, to_integer = 6755399441055744.0;  // 1.5 x 2^52: the sum's low bits are the integer
  const double y = x < least ? least : x;
  const double shifted = y * 1.4426950408889634 + to_integer;
  const double n = shifted - to_integer;
  const double r = y - n * 6.93147180369123816490e-01 - n * 1.90821492927058770002e-10;
  double p = 1.0 / 6227020800.0;
  p = p * r + 1.0 / 479001600.0;
  p = p * r + 1.0 / 39916800.0;
  p = p * r + 1.0 / 3628800.0;
  p = p * r + 1.0 / 362880.0;
  p = p * r + 1.0 / 40320.0;
  p = p * r + 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0;
  p = p * r + 1.0 / 120.0;
  p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  uint64_t bits;
  std::memcpy(&bits, &shifted, 8);
  bits = (bits + 1023) << 52;
  double power;
  std::memcpy(&power, &bits, 8);
  return x < least ? 0.0 : p * power;
}

static inline int64_t width_of(int64_t tags) { return (tags + 7) / 8 * 8; }

// How many rows are taken together. It follows from their number alone, and so do all sums over rows.
static inline int64_t rows_together(int64_t rows) { return rows <= 512 ? 8 : (rows + 63) / 64; }

// Whether rows follow one another over all words, and tags are tags.
static bool in_range(const int64_t* bounds, int64_t rows, int64_t words, const int64_t* tags, int64_t num_tags) {
  bool right = bounds[0] == 0 && bounds[rows] == words;
  for (int64_t row = 0; row < rows; row++) right &= bounds[row] <= bounds[row + 1];
  for (int64_t word = 0; tags && word < words; word++) right &= tags[word] >= 0 && tags[word] < num_tags;
  return right;
}

// Scores as probabilities beside the likeliest, and as logarithms.
struct Chain {
  int64_t C, W;
  const double *between, *start, *end;  // as they came
  std::vector<double> pairs, pairs_back, first, last;  // [C, W], [C, W] transposed, [W], [W]
  double top_pair, top_first, top_last;
  bool narrow = true;  // whether all probabilities are 0 only where the score is minus infinity

  Chain(const double* scores, int64_t tags)
      : C(tags), W(width_of(tags)), between(scores), start(scores + C * C), end(start + C), pairs(C * W),
        pairs_back(C * W), first(W), last(W) {
    top_pair = fill(between, C, pairs.data());
    top_first = fill(start, 1, first.data());
    top_last = fill(end, 1, last.data());
    for (int64_t i = 0; i < C; i++)
      for (int64_t j = 0; j < C; j++) pairs_back[j * W + i] = pairs[i * W + j];
  }

 private:
  double fill(const double* from, int64_t rows, double* to) {
    double top = FORBIDDEN;
    for (int64_t i = 0; i < rows * C; i++) top = from[i] > top ? from[i] : top;
    for (int64_t i = 0; i < rows; i++) {
      for (int64_t j = 0; j < C; j++) {
        const double x = from[i * C + j];
        narrow &= x - top >= -SPREAD || x == -INFINITY;
        to[i * W + j] = exp_below_zero(x - top);
      }
    }
    return top;
  }
};

// out = x matrix, for a matrix [C, W]. FIXED: W where it is known beforehand, which keeps the sums in registers.
template <int FIXED>
static inline void multiply(const double* x, const double* matrix, int64_t C, int64_t W, double* out) {
  if constexpr (FIXED > 0) {
    double sum[FIXED] = {};
    for (int64_t i = 0; i < C; i++) {
      const double factor = x[i];
#pragma omp simd
      for (int j = 0; j < FIXED; j++) sum[j] += factor * matrix[i * FIXED + j];
    }
#pragma omp simd
    for (int j = 0; j < FIXED; j++) out[j] = sum[j];
  } else {
    std::memset(out, 0, W * sizeof(double));
    for (int64_t i = 0; i < C; i++) {
      const double factor = x[i];
#pragma omp simd
      for (int64_t j = 0; j < W; j++) out[j] += factor * matrix[i * W + j];
    }
  }
}

// Where a row's vectors lie, word by word. Without a gradient only two words' are kept.
struct Kept {
  double *ahead, *into;  // [words, W]
  bool all;
  double* ahead_at(int64_t word, int64_t W) const { return ahead + (all ? word : word & 1) * W; }
  double* into_at(int64_t word, int64_t W) const { return into + (all ? word : 0) * W; }
};

// Forward recursion in probabilities, each word's summing to 1. ahead: of a tag, given what stands before it and at it;
// into: what leads from the sum over tags before to it. Log Z, or NaN where this is not exact.
template <int FIXED>
static double forward_scaled(const double* emissions, int64_t words, const Chain& chain, double least, const Kept& kept,
                             double* room) {
  const int64_t C = chain.C, W = FIXED > 0 ? FIXED : chain.W;
  double *sums = room, *x = room + W;
  double log_z = 0.0;
  const double* before = nullptr;
  for (int64_t word = 0; word < words; word++) {
    const double* e = emissions + word * C;
    double *ahead = kept.ahead_at(word, W), *into = kept.into_at(word, W);
    double top = -INFINITY;
    for (int64_t j = 0; j < C; j++) top = e[j] > top ? e[j] : top;
    for (int64_t j = 0; j < C; j++) x[j] = e[j] - top;
    for (int64_t j = C; j < W; j++) x[j] = -INFINITY;
    if (word == 0)
      std::memcpy(sums, chain.first.data(), W * sizeof(double));
    else
      multiply<FIXED>(before, chain.pairs.data(), C, W, sums);
    double total = 0.0;
#pragma omp simd reduction(+ : total)
    for (int64_t j = 0; j < W; j++) {
      const double w = exp_below_zero(x[j]);
      into[j] = sums[j] == 0.0 ? 0.0 : w;
      ahead[j] = sums[j] * w;
      total += ahead[j];
    }
    if (!(total > least)) return NAN;
    const double inverse = 1.0 / total;
    double lost = 0.0;
#pragma omp simd reduction(+ : lost)
    for (int64_t j = 0; j < W; j++) {
      into[j] *= inverse;
      ahead[j] *= inverse;
      lost += (ahead[j] >= least) | (sums[j] == 0.0) | (x[j] == -INFINITY) ? 0.0 : 1.0;
    }
    if (lost > 0.0) return NAN;
    log_z += std::log(total) + top;
    before = ahead;
  }
  double total = 0.0;
  for (int64_t j = 0; j < C; j++) total += before[j] * chain.last[j];
  if (!(total > 0.0)) return NAN;
  return log_z + std::log(total) + chain.top_first + chain.top_last + chain.top_pair * (words - 1);
}

static inline double held(double score) { return score < FORBIDDEN ? FORBIDDEN : score; }

// The same in logarithms, for any scores. into: ahead without the word's own score.
static double forward_in_logs(const double* emissions, int64_t words, const Chain& chain, const Kept& kept, double* room) {
  const int64_t C = chain.C, W = chain.W;
  double *top = room, *sum = room + W;
  const double* before = nullptr;
  for (int64_t word = 0; word < words; word++) {
    const double* e = emissions + word * C;
    double *ahead = kept.ahead_at(word, W), *into = kept.into_at(word, W);
    if (word == 0) {
      for (int64_t j = 0; j < C; j++) into[j] = held(chain.start[j]);
    } else {
      for (int64_t j = 0; j < C; j++) top[j] = -INFINITY, sum[j] = 0.0;
      for (int64_t i = 0; i < C; i++) {
#pragma omp simd
        for (int64_t j = 0; j < C; j++) {
          const double x = before[i] + held(chain.between[i * C + j]);
          top[j] = x > top[j] ? x : top[j];
        }
      }
      for (int64_t i = 0; i < C; i++) {
#pragma omp simd
        for (int64_t j = 0; j < C; j++) {
          sum[j] += exp_below_zero(before[i] + held(chain.between[i * C + j]) - top[j]);
        }
      }
      for (int64_t j = 0; j < C; j++) into[j] = top[j] + std::log(sum[j]);
    }
    for (int64_t j = 0; j < C; j++) ahead[j] = into[j] + held(e[j]);
    before = ahead;
  }
  double most = -INFINITY, total = 0.0;
  for (int64_t j = 0; j < C; j++) {
    const double x = before[j] + held(chain.end[j]);
    most = x > most ? x : most;
  }
  for (int64_t j = 0; j < C; j++) total += exp_below_zero(before[j] + held(chain.end[j]) - most);
  return most + std::log(total);
}

static double path_score(const double* emissions, const int64_t* tags, int64_t words, const Chain& chain) {
  double score = chain.start[tags[0]] + chain.end[tags[words - 1]];
  for (int64_t word = 0; word < words; word++) {
    score += emissions[word * chain.C + tags[word]];
    if (word > 0) score += chain.between[tags[word - 1] * chain.C + tags[word]];
  }
  return score;
}

// The gradient of a row's sum over tags: [words, C], [C, C] between, [C] first, [C] last. of_pairs is still to be
// multiplied by the pairs' probabilities.
struct Gradient {
  double *of_pairs, *between, *first, *last;
};

// Backward recursion to the marginals. behind: of what stands behind, given the tag, beside what stands before.
template <int FIXED>
static void backward_scaled(const Kept& kept, int64_t words, const Chain& chain, double factor, const int64_t* tags,
                            double* of_words, const Gradient& gradient, double* room) {
  const int64_t C = chain.C, W = FIXED > 0 ? FIXED : chain.W;
  double *behind = room, *through = room + W, *marginals = room + 2 * W;
  double total = 0.0;
  for (int64_t j = 0; j < C; j++) total += kept.ahead_at(words - 1, W)[j] * chain.last[j];
  for (int64_t j = 0; j < W; j++) behind[j] = chain.last[j] / total;
  for (int64_t word = words - 1; word >= 0; word--) {
    const double *ahead = kept.ahead_at(word, W), *into = kept.into_at(word, W);
#pragma omp simd
    for (int64_t j = 0; j < W; j++) {
      marginals[j] = factor * ahead[j] * behind[j];
      through[j] = into[j] * behind[j];
    }
    if (tags) marginals[tags[word]] -= factor;
    for (int64_t j = 0; j < C; j++) of_words[word * C + j] = marginals[j];
    if (word == words - 1)
      for (int64_t j = 0; j < C; j++) gradient.last[j] += marginals[j];
    if (word == 0) {
      for (int64_t j = 0; j < C; j++) gradient.first[j] += marginals[j];
      break;
    }
    const double* before = kept.ahead_at(word - 1, W);
    for (int64_t i = 0; i < C; i++) {
      const double share = factor * before[i];
#pragma omp simd
      for (int64_t j = 0; j < W; j++) gradient.of_pairs[i * W + j] += share * through[j];
    }
    if (tags) gradient.between[tags[word - 1] * W + tags[word]] -= factor;
    multiply<FIXED>(through, chain.pairs_back.data(), C, W, behind);
  }
}

static void backward_in_logs(const Kept& kept, int64_t words, const Chain& chain, double factor, const int64_t* tags,
                             double* of_words, const Gradient& gradient, double* room) {
  const int64_t C = chain.C, W = chain.W;
  double *marginals = room, *earlier = room + W;
  const double* last = kept.ahead_at(words - 1, W);
  double most = -INFINITY, total = 0.0;
  for (int64_t j = 0; j < C; j++) {
    const double x = last[j] + held(chain.end[j]);
    most = x > most ? x : most;
  }
  for (int64_t j = 0; j < C; j++) {
    marginals[j] = exp_below_zero(last[j] + held(chain.end[j]) - most);
    total += marginals[j];
  }
  for (int64_t j = 0; j < C; j++) marginals[j] *= factor / total;
  for (int64_t word = words - 1; word >= 0; word--) {
    const double hit = tags ? factor : 0.0;
    for (int64_t j = 0; j < C; j++) {
      const double own = marginals[j] - (tags && tags[word] == j ? hit : 0.0);
      of_words[word * C + j] = own;
      if (word == words - 1) gradient.last[j] += own;
      if (word == 0) gradient.first[j] += own;
    }
    if (word == 0) break;
    const double *before = kept.ahead_at(word - 1, W), *into = kept.into_at(word, W);
    for (int64_t i = 0; i < C; i++) {
      double sum = 0.0;
#pragma omp simd reduction(+ : sum)
      for (int64_t j = 0; j < C; j++) {
        const double pair = marginals[j] * exp_below_zero(before[i] + held(chain.between[i * C + j]) - into[j]);
        gradient.between[i * W + j] += pair;
        sum += pair;
      }
      earlier[i] = sum;
    }
    if (tags) gradient.between[tags[word - 1] * W + tags[word]] -= factor;
    std::swap(marginals, earlier);
  }
}

// log_z [R]: log Z, less the score of the row's tags where tags [M] are given. ahead, into [M, W]: kept for the
// gradient; null without one. in_logs [R]: whether the row was added up in logarithms: where a state that can be reached
// has less than `least` of a word's probability. 0, or -1 where bounds or tags are out of range.
template <int FIXED>
static int forward(const double* emissions, const int64_t* bounds, const int64_t* tags, const double* scores,
                   double* log_z, double* ahead, double* into, bool* in_logs, int64_t words, int64_t rows,
                   int64_t num_tags, double least) {
  if (!in_range(bounds, rows, words, tags, num_tags)) return -1;
  const Chain chain(scores, num_tags);
  const int64_t W = chain.W, together = rows_together(rows);
#pragma omp parallel
  {
    const std::unique_ptr<double[]> room(new double[5 * W]);
#pragma omp for schedule(dynamic)
    for (int64_t begin = 0; begin < rows; begin += together) {
      for (int64_t row = begin; row < rows && row < begin + together; row++) {
        const int64_t first = bounds[row], length = bounds[row + 1] - first;
        log_z[row] = 0.0;
        in_logs[row] = false;
        if (length == 0) continue;
        const double* e = emissions + first * num_tags;
        const Kept kept = ahead ? Kept{ahead + first * W, into + first * W, true}
                                : Kept{room.get() + 2 * W, room.get() + 4 * W, false};
        double found = chain.narrow ? forward_scaled<FIXED>(e, length, chain, least, kept, room.get()) : NAN;
        if (std::isnan(found)) {
          in_logs[row] = true;
          found = forward_in_logs(e, length, chain, kept, room.get());
        }
        log_z[row] = tags ? found - path_score(e, tags + first, length, chain) : found;
      }
    }
  }
  return 0;
}

// The gradient of the sum of factors [R] x what `forward` gave: of_words [M, C], of_scores [C x C + 2 C].
template <int FIXED>
static int backward(const double* factors, const int64_t* bounds, const int64_t* tags, const double* scores,
                    double* ahead, double* into, const bool* in_logs, double* of_words, double* of_scores, int64_t rows,
                    int64_t num_tags) {
  const Chain chain(scores, num_tags);
  const int64_t C = num_tags, W = chain.W, together = rows_together(rows);
  const int64_t parts = (rows + together - 1) / together, size = (C + 2) * W;
  std::vector<double> partial(parts * size);
#pragma omp parallel
  {
    const std::unique_ptr<double[]> room(new double[(3 + C) * W]);
    double* of_pairs = room.get() + 3 * W;
#pragma omp for schedule(dynamic)
    for (int64_t part = 0; part < parts; part++) {
      double* between = partial.data() + part * size;
      const Gradient gradient{of_pairs, between, between + C * W, between + (C + 1) * W};
      std::memset(of_pairs, 0, C * W * sizeof(double));
      for (int64_t row = part * together; row < rows && row < (part + 1) * together; row++) {
        const int64_t first = bounds[row], length = bounds[row + 1] - first;
        if (length == 0) continue;
        const Kept kept{ahead + first * W, into + first * W, true};
        const int64_t* own = tags ? tags + first : nullptr;
        if (in_logs[row])
          backward_in_logs(kept, length, chain, factors[row], own, of_words + first * C, gradient, room.get());
        else
          backward_scaled<FIXED>(kept, length, chain, factors[row], own, of_words + first * C, gradient,
                                    room.get());
      }
      for (int64_t i = 0; i < C * W; i++) between[i] += chain.pairs[i] == 0.0 ? 0.0 : of_pairs[i] * chain.pairs[i];
    }
  }
  // In the order of the rows, whichever thread had them.
  for (int64_t part = 0; part < parts; part++) {
    for (int64_t i = 0; i < C + 2; i++) {
      const double* from = partial.data() + part * size + i * W;
      for (int64_t j = 0; j < C; j++) of_scores[i * C + j] += from[j];
    }
  }
  return 0;
}

// As torch: NaN is the greatest.
template <typename T>
static inline bool is_more(T x, T y) {
  return x > y || (x != x && y == y);
}

// The likeliest tags [M] and their scores best [R]. scores are in the emissions' type, as is all arithmetic.
template <typename T>
static int viterbi(const T* emissions, const int64_t* bounds, const T* scores, int64_t* tags, T* best, int64_t words,
                   int64_t rows, int64_t num_tags) {
  if (!in_range(bounds, rows, words, nullptr, num_tags)) return -1;
  const int64_t C = num_tags, W = width_of(num_tags), together = rows_together(rows);
  const T *start = scores + C * C, *end = start + C;
  int64_t longest = 0;
  for (int64_t row = 0; row < rows; row++) {
    const int64_t length = bounds[row + 1] - bounds[row];
    longest = length > longest ? length : longest;
  }
  std::vector<T> between(C * W, -INFINITY), into(C * C);
  for (int64_t i = 0; i < C; i++)
    for (int64_t j = 0; j < C; j++) between[i * W + j] = into[j * C + i] = scores[i * C + j];
#pragma omp parallel
  {
    const std::unique_ptr<T[]> room(new T[(longest + 1) * W]);
    T* most = room.get() + longest * W;
#pragma omp for schedule(dynamic)
    for (int64_t begin = 0; begin < rows; begin += together) {
      for (int64_t row = begin; row < rows && row < begin + together; row++) {
        const int64_t first = bounds[row], length = bounds[row + 1] - first;
        best[row] = 0;
        if (length == 0) continue;
        for (int64_t word = 0; word < length; word++) {
          const T *e = emissions + (first + word) * C, *before = room.get() + (word - 1) * W;
          T* ahead = room.get() + word * W;
          if (word == 0) {
            for (int64_t j = 0; j < C; j++) ahead[j] = start[j] + e[j];
            continue;
          }
          for (int64_t j = 0; j < W; j++) most[j] = -INFINITY;
          for (int64_t i = 0; i < C; i++) {
            const T from = before[i];
            const T* to = between.data() + i * W;
#pragma omp simd
            for (int64_t j = 0; j < W; j++) {
              const T x = from + to[j];
              most[j] = (x > most[j]) | (x != x) ? x : most[j];
            }
          }
          for (int64_t j = 0; j < C; j++) ahead[j] = most[j] + e[j];
        }
        const T* last = room.get() + (length - 1) * W;
        int64_t tag = 0;
        for (int64_t j = 1; j < C; j++) tag = is_more(last[j] + end[j], last[tag] + end[tag]) ? j : tag;
        best[row] = last[tag] + end[tag];
        // Where the best came from is found on the way back, for one tag of a word instead of for all.
        for (int64_t word = length - 1; word >= 0; word--) {
          tags[first + word] = tag;
          if (word == 0) break;
          const T *before = room.get() + (word - 1) * W, *to = into.data() + tag * C;
          int64_t came = 0;
          T highest = before[0] + to[0];
          for (int64_t i = 1; i < C; i++) {
            const T x = before[i] + to[i];
            const bool more = is_more(x, highest);
            came = more ? i : came;
            highest = more ? x : highest;
          }
          tag = came;
        }
      }
    }
  }
  return 0;
}

// The usual numbers of tags have loops of known length.
template <typename Call>
static int with_width(int64_t tags, Call call) {
  switch (width_of(tags)) {
    case 8: return call(std::integral_constant<int, 8>());
    case 16: return call(std::integral_constant<int, 16>());
    case 24: return call(std::integral_constant<int, 24>());
    default: return call(std::integral_constant<int, 0>());
  }
}

extern "C" int crf_forward(const double* emissions, const int64_t* bounds, const int64_t* tags, const double* scores,
                           double* log_z, double* ahead, double* into, bool* in_logs, int64_t words, int64_t rows,
                           int64_t num_tags, double least) {
  return with_width(num_tags, [&](auto width) {
    return forward<width()>(emissions, bounds, tags, scores, log_z, ahead, into, in_logs, words, rows, num_tags, least);
  });
}

extern "C" int crf_backward(const double* factors, const int64_t* bounds, const int64_t* tags, const double* scores,
                            double* ahead, double* into, const bool* in_logs, double* of_words, double* of_scores,
                            int64_t rows, int64_t num_tags) {
  return with_width(num_tags, [&](auto width) {
    return backward<width()>(factors, bounds, tags, scores, ahead, into, in_logs, of_words, of_scores, rows, num_tags);
  });
}

extern "C" int crf_viterbi_fp32(const float* emissions, const int64_t* bounds, const float* scores, int64_t* tags,
                                float* best, int64_t words, int64_t rows, int64_t num_tags) {
  return viterbi(emissions, bounds, scores, tags, best, words, rows, num_tags);
}

extern "C" int crf_viterbi_fp64(const double* emissions, const int64_t* bounds, const double* scores, int64_t* tags,
                                double* best, int64_t words, int64_t rows, int64_t num_tags) {
  return viterbi(emissions, bounds, scores, tags, best, words, rows, num_tags);
}
