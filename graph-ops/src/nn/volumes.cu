// Convolutions and poolings of volumes, straight from their definitions: a thread an element, or a block an element of the
// filter's gradient. As in the CPU's kernels, padding takes no part in poolings.
//
// Defined from outside: T, the elements' type.

typedef typename Accumulate<T>::type A;

struct Volume {
  // Planes, rows and columns.
  Window windows[3];
  i64 batch, channels;
  // Channels of a convolution's output; as many as `channels` of a pooling's.
  i64 outputs;
  i64 channels_last, spare[2];
};

struct Place {
  i64 image, at[3], channel;
};

// Volumes of these sizes, and where their elements lie.
struct Layout {
  i64 sizes[3], channels, channels_last;

  DEVICE Place place(i64 index) const {
    Place place;
    if (channels_last != 0) {
      place.channel = index % channels;
      index /= channels;
    }
    for (int axis = 2; axis >= 0; --axis) {
      place.at[axis] = index % sizes[axis];
      index /= sizes[axis];
    }
    if (channels_last == 0) {
      place.channel = index % channels;
      index /= channels;
    }
    place.image = index;
    return place;
  }

  DEVICE i64 index(i64 image, i64 plane, i64 row, i64 column, i64 channel) const {
    if (channels_last != 0) return (((image * sizes[0] + plane) * sizes[1] + row) * sizes[2] + column) * channels + channel;
    return (((image * channels + channel) * sizes[0] + plane) * sizes[1] + row) * sizes[2] + column;
  }
};

DEVICE Layout input_of(const Volume& v) {
  return {{v.windows[0].input, v.windows[1].input, v.windows[2].input}, v.channels, v.channels_last};
}
DEVICE Layout output_of(const Volume& v) {
  return {{v.windows[0].output, v.windows[1].output, v.windows[2].output}, v.outputs, v.channels_last};
}

// Goes over the taps of the window at `place`: `voxel` is the element under each that is inside, `tap` its number.
#define FOR_TAPS(v, layout, place, channel)                                                                     \
  for (i64 i = 0, tap = 0; i < v.windows[0].size; ++i)                                                          \
    for (i64 j = 0; j < v.windows[1].size; ++j)                                                                 \
      for (i64 k = 0; k < v.windows[2].size; ++k, ++tap)                                                        \
        if (i64 plane = v.windows[0].under(place.at[0], i), row = v.windows[1].under(place.at[1], j),           \
            column = v.windows[2].under(place.at[2], k);                                                        \
            plane >= 0 && row >= 0 && column >= 0)                                                              \
          if (i64 voxel = layout.index(place.image, plane, row, column, channel); voxel >= 0)

// Goes over the windows over the voxel at `place`, the first ones first: `window` is their output's element.
#define FOR_WINDOWS(v, layout, place, channel)                                                                  \
  for (i64 i = v.windows[0].size - 1; i >= 0; --i)                                                              \
    for (i64 j = v.windows[1].size - 1; j >= 0; --j)                                                            \
      for (i64 k = v.windows[2].size - 1; k >= 0; --k)                                                          \
        if (i64 plane = v.windows[0].over(place.at[0], i), row = v.windows[1].over(place.at[1], j),         \
            column = v.windows[2].over(place.at[2], k);                                                       \
            plane >= 0 && row >= 0 && column >= 0)                                                              \
          if (i64 window = layout.index(place.image, plane, row, column, channel); window >= 0)

KERNEL(conv3d, T* out, const T* volumes, const T* filter, Volume v, i64 n) {
  Layout input = input_of(v), output = output_of(v);
  i64 step = input.channels_last != 0 ? 1 : input.sizes[0] * input.sizes[1] * input.sizes[2];
  GRID_LOOP(at, n) {
    Place place = output.place(at);
    A sum = A(0);
    FOR_TAPS(v, input, place, 0) {
      const T* weights = filter + tap * v.channels * v.outputs + place.channel;
      for (i64 c = 0; c < v.channels; ++c) sum += A(volumes[voxel + c * step]) * A(weights[c * v.outputs]);
    }
    out[at] = T(sum);
  }
}

KERNEL(conv3d_backprop_input, T* out, const T* filter, const T* gradient, Volume v, i64 n) {
  Layout input = input_of(v), output = output_of(v);
  i64 step = output.channels_last != 0 ? 1 : output.sizes[0] * output.sizes[1] * output.sizes[2];
  GRID_LOOP(at, n) {
    Place place = input.place(at);
    A sum = A(0);
    FOR_WINDOWS(v, output, place, 0) {
      i64 tap = (i * v.windows[1].size + j) * v.windows[2].size + k;
      const T* weights = filter + (tap * v.channels + place.channel) * v.outputs;
      for (i64 o = 0; o < v.outputs; ++o) sum += A(gradient[window + o * step]) * A(weights[o]);
    }
    out[at] = T(sum);
  }
}

// A block an element of the filter.
BLOCK_KERNEL(conv3d_backprop_filter, 256, T* out, const T* volumes, const T* gradient, Volume v, i64 n) {
  Layout input = input_of(v), output = output_of(v);
  i64 windows = output.sizes[0] * output.sizes[1] * output.sizes[2] * v.batch;
  for (i64 at = blockIdx.x; at < n; at += gridDim.x) {
    i64 o = at % v.outputs, rest = at / v.outputs, c = rest % v.channels, tap = rest / v.channels, taps[3];
    for (int axis = 2; axis >= 0; --axis) {
      taps[axis] = tap % v.windows[axis].size;
      tap /= v.windows[axis].size;
    }
    A sum = A(0);
    for (i64 window = threadIdx.x; window < windows; window += 256) {
      i64 place[3], image = window;
      for (int axis = 2; axis >= 0; --axis) {
        place[axis] = image % output.sizes[axis];
        image /= output.sizes[axis];
      }
      i64 plane = v.windows[0].under(place[0], taps[0]), row = v.windows[1].under(place[1], taps[1]);
      i64 column = v.windows[2].under(place[2], taps[2]);
      if (plane < 0 || row < 0 || column < 0) continue;
      A x = A(volumes[input.index(image, plane, row, column, c)]);
      sum += x * A(gradient[output.index(image, place[0], place[1], place[2], o)]);
    }
    sum = reduce_block<Add, 256>(sum);
    if (threadIdx.x == 0) out[at] = T(sum);
  }
}

KERNEL(max_pool3d, T* out, const T* volumes, Volume v, i64 n) {
  Layout input = input_of(v), output = output_of(v);
  GRID_LOOP(at, n) {
    Place place = output.place(at);
    A best = A(LOWEST);
    FOR_TAPS(v, input, place, place.channel) {
      A x = A(volumes[voxel]);
      if (best < x) best = x;
    }
    out[at] = T(best);
  }
}

// Goes to every element that is equal to its window's largest.
KERNEL(max_pool3d_grad, T* out, const T* volumes, const T* pooled, const T* gradient, Volume v, i64 n) {
  Layout input = input_of(v), output = output_of(v);
  GRID_LOOP(at, n) {
    Place place = input.place(at);
    A own = A(volumes[at]), sum = A(0);
    FOR_WINDOWS(v, output, place, place.channel) {
      if (own == A(pooled[window])) sum += A(gradient[window]);
    }
    out[at] = T(sum);
  }
}

// Of each window the element where its first largest one is.
KERNEL(max_pool3d_grad_grad, T* out, const T* volumes, const T* pooled, const T* gradient, Volume v, i64 n) {
  Layout input = input_of(v), output = output_of(v);
  GRID_LOOP(at, n) {
    Place place = output.place(at);
    A largest = A(pooled[at]);
    T picked = T(A(0));
    bool found = false;
    FOR_TAPS(v, input, place, place.channel) {
      if (!found && A(volumes[voxel]) == largest) {
        picked = gradient[voxel];
        found = true;
      }
    }
    out[at] = picked;
  }
}

KERNEL(avg_pool3d, T* out, const T* volumes, Volume v, i64 n) {
  Layout input = input_of(v), output = output_of(v);
  GRID_LOOP(at, n) {
    Place place = output.place(at);
    A sum = A(0);
    i64 count = 0;
    FOR_TAPS(v, input, place, place.channel) {
      sum += A(volumes[voxel]);
      ++count;
    }
    out[at] = T(sum / A(count));
  }
}

// The voxels inside window `index` along an axis.
DEVICE i64 inside(const Window& window, i64 index) {
  i64 count = 0;
  for (i64 tap = 0; tap < window.size; ++tap) count += window.under(index, tap) >= 0 ? 1 : 0;
  return count;
}

KERNEL(avg_pool3d_grad, T* out, const T* gradient, Volume v, i64 n) {
  Layout input = input_of(v), output = output_of(v);
  GRID_LOOP(at, n) {
    Place place = input.place(at);
    A sum = A(0);
    FOR_WINDOWS(v, output, place, place.channel) {
      i64 count = inside(v.windows[0], plane) * inside(v.windows[1], row) * inside(v.windows[2], column);
      sum += A(gradient[window]) / A(count);
    }
    out[at] = T(sum);
  }
}
