// Filters in the order of a library of convolutions, output channels first, and back.
//
// Defined from outside: W, the word that an element is moved as; CHANNELS_LAST, whether taps come before input channels there.

// Where element `i` of [out channels, taps, in channels] (or [out channels, in channels, taps]) is in [taps, in, out channels].
DEVICE i64 out_last(i64 i, i32 taps, i32 in_channels, i32 out_channels) {
  i64 filter = i64(taps) * in_channels, out = i / filter, rest = i - out * filter;
#if CHANNELS_LAST
  return rest * out_channels + out;
#else
  i64 channel = rest / taps, tap = rest - channel * taps;
  return (tap * in_channels + channel) * out_channels + out;
#endif
}

KERNEL(out_channels_first, W* to, const W* from, i64 n, i32 taps, i32 in_channels, i32 out_channels) {
  GRID_LOOP(i, n) to[i] = from[out_last(i, taps, in_channels, out_channels)];
}

KERNEL(out_channels_last, W* to, const W* from, i64 n, i32 taps, i32 in_channels, i32 out_channels) {
  GRID_LOOP(i, n) to[out_last(i, taps, in_channels, out_channels)] = from[i];
}
