// One spatial axis of a windowed operation, counted in 64 bits: elements of the input, taps of the window, and how it slides.
struct Window {
  i64 input, size, stride, dilation, before, output;

  // The element under a tap of window `index`; -1 outside.
  DEVICE i64 under(i64 index, i64 tap) const {
    i64 element = index * stride + tap * dilation - before;
    return element >= 0 && element < input ? element : -1;
  }

  // The window whose tap lies over `element`; -1 if there is none.
  DEVICE i64 over(i64 element, i64 tap) const {
    i64 start = element + before - tap * dilation;
    return start >= 0 && start % stride == 0 && start / stride < output ? start / stride : -1;
  }
};

