// Windows of pictures, each laid out along the channels. Elements are moved as words W.

struct Patches {
  Window rows, columns;
  i64 channels, spare[11];
};

KERNEL(extract, W* out, const W* in, Patches p, i64 n) {
  GRID_LOOP(at, n) {
    i64 channel = at % p.channels, rest = at / p.channels;
    i64 j = rest % p.columns.size;
    rest /= p.columns.size;
    i64 i = rest % p.rows.size;
    rest /= p.rows.size;
    i64 x = rest % p.columns.output;
    rest /= p.columns.output;
    i64 row = p.rows.under(rest % p.rows.output, i), column = p.columns.under(x, j), picture = rest / p.rows.output;
    W word = {};
    if (row >= 0 && column >= 0) {
      word = in[((picture * p.rows.input + row) * p.columns.input + column) * p.channels + channel];
    }
    out[at] = word;
  }
}
