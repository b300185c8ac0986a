// Sorted segment numbers, of which those of a segment are a run.

// The first of `n` sorted numbers, from `low` on, that is not below `number`.
template <class Number>
DEVICE i64 first_from(const Number* numbers, i64 low, i64 n, i64 number) {
  i64 high = n;
  while (low < high) {
    i64 middle = low + (high - low) / 2;
    if (i64(numbers[middle]) < number) low = middle + 1;
    else high = middle;
  }
  return low;
}
