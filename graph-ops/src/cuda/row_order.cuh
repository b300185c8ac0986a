// Updates in the order of the rows that they are of, as `row_order.cu` sorts them.
//
// A key holds an update's row before its number. No two are equal, so there is one order: row by row, and in a row by number.

// The key of an update without a row: behind all others.
#define NO_ROW (~u64(0))

// Sorted keys, and how many bits of each hold an update's number.
struct RowOrder {
  const u64* keys;
  i64 count;
  i64 bits;

  DEVICE u64 row_at(i64 at) const { return keys[at] >> bits; }

  // The number of the update at this place.
  DEVICE i64 number_at(i64 at) const { return i64(keys[at] & ((u64(1) << bits) - 1)); }

  // Whether the updates of a row begin at this place.
  DEVICE bool begins(i64 at) const { return keys[at] != NO_ROW && (at == 0 || row_at(at - 1) != row_at(at)); }

  // Calls `take` with the number of each update of the row that begins at this place, in their order.
  template <class Take>
  DEVICE void each(i64 at, const Take& take) const {
    u64 row = row_at(at);
    do {
      take(number_at(at));
    } while (++at < count && row_at(at) == row);
  }
};

