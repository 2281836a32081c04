// What a reduction asks of a cost: Near, points with d <= 3; Tiled, points of any dimension; Stored, a matrix.
//
// A block of THREADS threads has R rows, RI of them in each thread, and goes over the columns TILE at a time. LX
// neighbouring lanes share their rows; a step of a tile gives each thread SJ columns. `entry` is the type of what is
// read, `real` that of logits and exponentials. A form offers
//     open(rho)             the rows of this block, its origins, and what the logits of a row have in common, rho
//     Walk                  the tiles to go over: next(first) tells the first column of one; keeps(bound) whether it
//                           matters, once it is filled
//     fill(first)           columns first, first + 1, ... into shared memory; an upper bound of their logits
//     load(step, c)         the columns of a step
//     logits(c, z, t)       z[r][s] + rho is the logit of row r and column s; t[r][s] is scale times a cost, no square
//     slope(c, r, s, k, t)  the gradient of the cost along coordinate k, up to `factor`: Near only
// All logits are in base 2: log2(e) (h[j] - C[i, j] / eps) = rho[i] + z[i, j] with scale = log2(e) factor / eps.
constexpr int SQUARE = 0, EUCLIDEAN = 1, CITYBLOCK = 2;
constexpr int SAMPLES = 256;  // columns that are tried as the image of a block
constexpr int FRAME = 256;    // rows that have a common centre
constexpr int GROUP = 64;     // tiles in the larger boxes
constexpr double TILE_BITS = 7, GROUP_BITS = 6;  // log2 of the columns of a tile that can be left out; of GROUP
constexpr int CHUNK = 4;      // columns of values that a block sums at once in registers
constexpr int WIDTH = 32;     // and in shared memory

// What the kernels read. x, y: points, in the order of x_order and y_order, or the matrix. x_extra, y_extra: of Near
// the centres and half widths of FRAME rows, and the lowest and highest coordinates of tiles and of groups of them; of
// Tiled the squared lengths. groups: their number, 0 where there are no boxes, and nothing is prepared.
template <typename T> struct Source {
    const T *x, *y;
    const double *x_extra, *y_extra;
    const Index *x_order, *y_order;
    const double *h, *prepared;
    Index n, m, d;
    Index down, right;  // strides of the matrix
    Index groups;
    double scale;
    __device__ __forceinline__ double weight(Index j) const
    {
        return groups > 0 ? prepared[j] : LOG2_E * h[y_order[j]];
    }
};

// All tiles, one after the other.
template <class Form> struct Every {
    Index tile;
    const Index end;
    __device__ Every(Form&, Index begin, Index end, bool) : tile(begin - Form::TILE), end(end) {}
    __device__ __forceinline__ bool next(Index& column) { column = tile += Form::TILE; return tile < end; }
    __device__ __forceinline__ bool keeps(typename Form::real) { __syncthreads(); return true; }
};

template <int COST, typename T> __device__ __forceinline__ void accumulate(T& total, T x, T y)
{
    if constexpr (COST == SQUARE) total += x * y;
    if constexpr (COST == EUCLIDEAN) { const T gap = x - y; total += gap * gap; }
    if constexpr (COST == CITYBLOCK) total += magnitude(x - y);
}

// The gradient of a cost along one coordinate, from the difference along it, up to `stretch`.
template <int COST, typename T> __device__ __forceinline__ T direction(T gap)
{
    if constexpr (COST == CITYBLOCK) return gap > 0 ? T(1) : gap < 0 ? T(-1) : T(0);
    return gap;
}

// t is scale times the distance.
template <int COST, typename T> __device__ __forceinline__ T stretch(T t, T scale)
{
    if constexpr (COST == EUCLIDEAN) return t > 0 ? scale / t : T(0);
    return T(1);
}
