//! The order of numbers, and the greatest of many.

/// A number's place in the order of all numbers of its dtype.
pub(super) trait Key: Copy + Ord + Send + Sync {
    /// A key and the place of its element, in one number: of equal keys, that of the first place is greater.
    type Placed: Copy + Ord;
    fn at(self, place: u32) -> Self::Placed;
    fn place(placed: Self::Placed) -> i32;
}

impl Key for u32 {
    type Placed = u64;
    fn at(self, place: u32) -> u64 {
        u64::from(self) << 32 | u64::from(!place)
    }
    fn place(placed: u64) -> i32 {
        !(placed as u32) as i32
    }
}

impl Key for u64 {
    type Placed = u128;
    fn at(self, place: u32) -> u128 {
        u128::from(self) << 32 | u128::from(!place)
    }
    fn place(placed: u128) -> i32 {
        !(placed as u32) as i32
    }
}

/// Leaves the `k` greatest elements in `order`, in descending order.
pub(super) fn greatest<P: Copy + Ord>(elements: impl Iterator<Item = P>, order: &mut Vec<P>, k: usize) {
    /// As few are kept in order while the others pass by.
    const FEW: usize = 32;
    order.clear();
    if k > FEW {
        order.extend(elements);
        if k < order.len() {
            order.select_nth_unstable_by(k - 1, |a, b| b.cmp(a));
            order.truncate(k);
        }
        return order.sort_unstable_by(|a, b| b.cmp(a));
    }
    for element in elements {
        if order.len() == k {
            match order.last() {
                Some(&least) if element > least => order.pop(),
                _ => continue,
            };
        }
        let behind = order.iter().rev().take_while(|&&other| other < element).count();
        order.insert(order.len() - behind, element);
    }
}

/// The indices of the greatest keys in the order in which they lie in TensorFlow's heap, the least of them at its root:
/// filled with one element more than wanted, which goes, and then, for each greater than the root, the root goes and that
/// one comes.
pub(super) fn greatest_in_heap_order<K: Key>(keys: &[K], heap: &mut Vec<i32>, indices: &mut [i32]) {
    let k = indices.len();
    // Of equal ones the later is the lesser.
    let greater = |a: i32, b: i32| (keys[a as usize], b) > (keys[b as usize], a);
    heap.clear();
    heap.extend(0..=k as i32);
    for root in (0..heap.len() / 2).rev() {
        let element = heap[root];
        settle(heap, root, element, greater);
    }
    drop_root(heap, greater);
    for index in k as i32 + 1..keys.len() as i32 {
        if greater(index, heap[0]) {
            drop_root(heap, greater);
            heap.push(index);
            rise(heap, k - 1, 0, index, greater);
        }
    }
    indices.copy_from_slice(heap);
}

/// Takes the root out of a heap.
fn drop_root(heap: &mut Vec<i32>, greater: impl Fn(i32, i32) -> bool) {
    if let Some(last) = heap.pop()
        && !heap.is_empty()
    {
        settle(heap, 0, last, greater);
    }
}

/// Puts `element` at its place below `root`, which is empty: the lesser child moves up all the way, then the element rises.
fn settle(heap: &mut [i32], root: usize, element: i32, greater: impl Fn(i32, i32) -> bool) {
    let mut hole = root;
    while 2 * hole + 1 < heap.len() {
        let (left, right) = (2 * hole + 1, 2 * hole + 2);
        let child = if right < heap.len() && !greater(heap[right], heap[left]) {
            right
        } else {
            left
        };
        heap[hole] = heap[child];
        hole = child;
    }
    rise(heap, hole, root, element, greater);
}

/// Puts `element` at its place above `hole`, below `root`.
fn rise(heap: &mut [i32], mut hole: usize, root: usize, element: i32, greater: impl Fn(i32, i32) -> bool) {
    while hole > root && greater(heap[(hole - 1) / 2], element) {
        heap[hole] = heap[(hole - 1) / 2];
        hole = (hole - 1) / 2;
    }
    heap[hole] = element;
}

/// What is not a number comes before all that is; both zeros are one number.
macro_rules! float_keys {
    ($($function:ident: $float:ty => $key:ty;)*) => {$(
        pub(super) fn $function(x: $float) -> $key {
            const SIGN: $key = 1 << (<$key>::BITS - 1);
            if x.is_nan() {
                return 0;
            }
            let bits = (x + 0.0).to_bits();
            if bits & SIGN != 0 { !bits } else { bits | SIGN }
        }
    )*};
}

float_keys! {
    key_of_single: f32 => u32;
    key_of_double: f64 => u64;
}
