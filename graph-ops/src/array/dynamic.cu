// Slices dealt out to parts, and put at their places. Slices are `inner` words W long.

DEVICE i64 quotient(i64 of, i64 by) {
  return of < (1LL << 31) && by < (1LL << 31) ? i64(u32(of) / u32(by)) : of / by;
}

// Where in the order the slices of each part begin. Behind the last part begin those that are of none.
KERNEL(begins, i64* first, RowOrder order, i64 parts) {
  GRID_LOOP(part, parts + 1) {
    i64 low = 0, high = order.count;
    while (low < high) {
      i64 middle = low + (high - low) / 2;
      if (order.row_at(middle) < u64(part)) low = middle + 1;
      else high = middle;
    }
    first[part] = low;
  }
}

// The slices whose numbers the order has from `first` on.
KERNEL(take_slices, W* to, const W* from, RowOrder order, i64 first, i64 n, i64 inner) {
  GRID_LOOP(at, n) {
    i64 slice = quotient(at, inner);
    to[at] = from[order.number_at(first + slice) * inner + (at - slice * inner)];
  }
}

// Puts slices at their places; those whose place is negative are left out.
KERNEL(place_slices, W* to, const W* from, const i64* places, i64 n, i64 inner) {
  GRID_LOOP(at, n) {
    i64 slice = quotient(at, inner), place = places[slice];
    if (place >= 0) to[place * inner + (at - slice * inner)] = from[at];
  }
}
