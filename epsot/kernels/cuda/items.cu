// The steps of `burst.cu` for all items of a batch, one block an item: it stops where the solver would decide something
// else, whatever the others do. Grids are (1, items), or (1, items, more) where these are too many for an axis.
//
// Vectors are padded, (items, n) or (items, m); an item has its first task.n, task.m entries, the others are left as
// they are. What a solve goes on with is replaced in place, of items that have steps to make; others keep theirs.
constexpr int ITEM_THREADS = 128;  // a warp for each scheduler ...
constexpr int ITEM_BLOCKS = 2;     // ... from each of two blocks: 255 registers; with 168 much would spill

// Where the threads of a block that is alone meet. In the first axis of its grid there is no other, so that what is
// written for blocks that share a problem is right for this one.
struct Alone {
    static constexpr int THREADS = ITEM_THREADS;
    __device__ __forceinline__ void meet() const { __syncthreads(); }
};

// x, y: where the coordinates of an item, or its costs, begin in those of all.
struct AlternateItem {
    Index x, y;
    AlternateTask task;
};
struct AverageItem {
    Index x;
    AverageTask task;
};

// The number of this block's item.
__device__ __forceinline__ Index item_number() { return blockIdx.z * Index(gridDim.y) + blockIdx.y; }

// (m,) numbers of a block's own.
template <int THREADS> __device__ __forceinline__ void copy(const double* from, Index m, double* to)
{
#pragma unroll 1
    EPSOT_EVERY(j, m, 1) to[j] = from[j];
}

// The directions of `Memory` in the order of `Advance`, the oldest first, and back. moves: (ROWS - 1, wide), those of
// the item; own: (ROWS, m), of which row `first` has the oldest.
template <int THREADS, int ROWS>
__device__ __forceinline__ void
load_directions(const double* moves, Index wide, int oldest, int count, Index m, double* own)
{
#pragma unroll 1
    for (int p = 0; p < count; ++p) copy<THREADS>(moves + (oldest + p) % (ROWS - 1) * wide, m, own + p * m);
}
template <int THREADS, int ROWS>
__device__ __forceinline__ void
store_directions(const double* own, Index m, int first, int count, double* moves, Index wide)
{
#pragma unroll 1
    for (int p = 0; p < count; ++p) copy<THREADS>(own + (first + p) % ROWS * m, m, moves + p * wide);
}

// ConjugateResiduals.run of many problems. f, g, updated, start: the last step; best_..: the best; moves to expected:
// the `Memory`; work: `width` numbers an item, as of `alternate`, then its last result and residual and its directions.
// numbers: (items, ALTERNATE_HEAD); errors: (items, room), whose first `past` columns have those before, the last at
// their end.
template <class Pairs, int ROWS>
__global__ void __launch_bounds__(ITEM_THREADS, ITEM_BLOCKS)
alternate_items(const typename Pairs::Place* x, const typename Pairs::Place* y, const double* log_a,
                const double* log_b, const double* b, const double* weights, const double* ease, double* f, double* g,
                double* updated, double* start, double* best_f, double* best_g, double* best_updated,
                double* best_start, double* moves, double* changes, double* result, double* residual, Index* taken,
                bool* known, double* size, double* expected, double* work, double* numbers, double* errors,
                const AlternateItem* items, const Index count, const Index wide_n, const Index wide_m,
                const Index width, const Index past, const Index room)
{
    constexpr int THREADS = ITEM_THREADS, WINDOW = ROWS - 1;
    typedef AlternateArrays<typename Pairs::Place> Arrays;
    __shared__ AlternateTask task;
    __shared__ Arrays at;
    const Index item = item_number(), rows = item * wide_n, columns = item * wide_m;
    if (item >= count || items[item].task.steps == 0) return;
    if (threadIdx.x == 0) {
        task = items[item].task;
        task.moved = known[item];
        task.directions = task.moved ? int(smaller(taken[item], WINDOW)) : 0;
        task.slot = task.directions;
        task.size = size[item];
        task.expected = expected[item];
        double *own = work + item * width, *last = own + width - (2 + 2 * ROWS) * task.m;
        at = {x + items[item].x, y + items[item].y, log_a + rows, log_b + columns, b + columns,
                         weights + columns, ease + columns, f + rows, start + columns, last, last + 2 * task.m,
                         last + (2 + ROWS) * task.m, own, numbers + item * ALTERNATE_HEAD,
                         errors + item * room + past - task.known};
    }
    __syncthreads();
    if (task.moved) {
        const int oldest = int((taken[item] - task.directions) % WINDOW);
        double* last = const_cast<double*>(at.first_past);
        copy<THREADS>(result + columns, task.m, last);
        copy<THREADS>(residual + columns, task.m, last + task.m);
        load_directions<THREADS, ROWS>(moves + columns * WINDOW, wide_m, oldest, task.directions, task.m, at.moves);
        load_directions<THREADS, ROWS>(changes + columns * WINDOW, wide_m, oldest, task.directions, task.m,
                                       at.changes);
    }
    alternate_by<Pairs, ROWS>(Alone(), at, task);
    const AlternateRoom own = {at.work, task.n, task.m};
    const Index n = task.n, m = task.m;
    const bool balanced = task.balanced != 0;
    const double* head = at.numbers;
    const int made = int(head[0]), kept = int(head[4]), first = (int(head[5]) - kept + ROWS) % ROWS;
    const int last = int(head[9]), best = int(head[10]);
    copy<THREADS>(own.f(last), n, f + rows);
    copy<THREADS>(own.g(last), m, g + columns);
    copy<THREADS>(own.updated(last), m, updated + columns);
    const bool finite = magnitude(at.errors[task.known + made - 1]) < -minus_infinity();
    copy<THREADS>(finite ? own.start() : own.result(last, balanced), m, start + columns);
    if (best >= 0) {
        copy<THREADS>(own.f(best), n, best_f + rows);
        copy<THREADS>(own.g(best), m, best_g + columns);
        copy<THREADS>(own.updated(best), m, best_updated + columns);
        copy<THREADS>(own.result(best, balanced), m, best_start + columns);
    }
    copy<THREADS>(own.pair(made - 1), m, result + columns);
    copy<THREADS>(own.pair(made - 1) + m, m, residual + columns);
    store_directions<THREADS, ROWS>(at.moves, m, first, kept, moves + columns * WINDOW, wide_m);
    store_directions<THREADS, ROWS>(at.changes, m, first, kept, changes + columns * WINDOW, wide_m);
    if (threadIdx.x == 0) {
        taken[item] = kept;
        known[item] = true;
        size[item] = head[2];
        expected[item] = head[3];
    }
}

// SelfTransport.run of many problems. f, updated, mean: of the last step. work: as of `average`.
template <class Pairs>
__global__ void __launch_bounds__(ITEM_THREADS, ITEM_BLOCKS)
average_items(const typename Pairs::Place* x, const double* log_a, double* f, double* updated, double* mean,
              double* work, double* numbers, double* errors, const AverageItem* items, const Index count,
              const Index wide, const Index width, const Index past, const Index room)
{
    constexpr int THREADS = ITEM_THREADS;
    __shared__ AverageTask task;
    const Index item = item_number();
    if (item >= count || items[item].task.steps == 0) return;
    if (threadIdx.x == 0) task = items[item].task;
    __syncthreads();
    const Index n = task.n, rows = item * wide;
    double *own = work + item * width, *head = numbers + item * AVERAGE_HEAD;
    average_by<Pairs>(Alone(), x + items[item].x, log_a + rows, mean + rows, own, head,
                      errors + item * room + past - task.known, task);
    const int last = int(head[1]);
    copy<THREADS>(own + last * n, n, f + rows);
    copy<THREADS>(own + 2 * n, n, updated + rows);
    copy<THREADS>(own + (1 - last) * n, n, mean + rows);
}
