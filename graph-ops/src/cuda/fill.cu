// One number everywhere.
//
// Defined from outside: O, the elements' type, and VALUE.

#define PACK 4
struct alignas(sizeof(O) * PACK < 16 ? sizeof(O) * PACK : 16) Pack {
  O of[PACK];
};

KERNEL(fill, O* out, i64 n) {
  Pack pack;
  for (int k = 0; k < PACK; ++k) pack.of[k] = O(VALUE);
  i64 packs = n / PACK;
  GRID_LOOP(at, packs)((Pack*)out)[at] = pack;
  GRID_LOOP(rest, n - packs * PACK) out[packs * PACK + rest] = O(VALUE);
}
