// Points with d <= 3. The coordinates of a block are taken from its centre, those of the columns, for a square, from
// the image of the centre: where the plan sends it, roughly. The logits that matter are then small, and float32
// resolves them. All that is large cancels in float64, once for each column and block.
//
// Columns far below the sums are left out, tile by tile: on the boxes around GROUP tiles and around one, GROUP of them
// at once, before anything of them is read, then on a closer bound of the columns themselves. The bounds are those of
// the CPU kernels. Many columns have boxes; a few (groups == 0) only the closer bound.
constexpr double NEAR_BITS = 4;   // a column so near to the best is as good an image: rows of a block differ by more
constexpr double SHARE_BITS = 4;  // no tile, nor group of them, takes more than 2^-4 of what may be left out

template <typename T, int COST, int D, int THREADS_, int RI_, int SJ_, int TILE_>
struct Near {
    typedef T real, entry;
    static constexpr int THREADS = THREADS_, RI = RI_, SJ = SJ_, TILE = TILE_, LX = 1, R = THREADS * RI;
    static constexpr int STEPS = TILE / SJ, FOLD = 1, SLOPES = D, KIND = COST, WARPS = THREADS / 32;
    static constexpr bool SKIPS = true;
    static constexpr int RESIDENT = sizeof(T) == 4 ? 8 : 1;  // blocks of a multiprocessor that must find registers
    static constexpr int UNROLL = COST == SQUARE ? 2 : 1;    // steps of a sum: 4 % faster
    static_assert(THREADS == GROUP && WARPS == 2, "each thread tests one tile of a group");
    struct Shared {
        alignas(16) T column[D + 1][TILE];
        double centre[D], image[D], reach[D], reference;  // the rows are within reach of the centre
        double level, bar, budget;  // of a walk
        double masses[WARPS];
        unsigned votes[WARPS];
        T tops[WARPS];
        Best best;
    };
    struct Columns { T u[SJ], y[D][SJ]; };

    Shared& shared;
    const Source<T>& p;
    const Index first;
    Index image;  // the column to which the plan sends the centre, roughly; -1: there is none
    bool bent;    // which bound of the rows holds: see `raise`
    T x[RI][D], moved[RI][D];

    __device__ Near(Shared& shared, const Source<T>& p, Index block)
        : shared(shared), p(p), first(block * R), image(-1), bent(false) {}
    __device__ __forceinline__ int row(int r) const { return r * THREADS + threadIdx.x; }
    __device__ __forceinline__ int column(int step, int s) const { return step * SJ + s; }
    __device__ __forceinline__ Index tiles() const { return (p.m + TILE - 1) / TILE; }

    // An upper bound of the logits of a box in this block, up to the level of its rows. node: a tile, or tiles() + a
    // group.
    __device__ __forceinline__ double box_bound(Index node) const
    {
        const double* box = p.y_extra + node * (2 * D);
        double bound = p.prepared[p.m + node] - shared.reference, far = 0;
#pragma unroll 1
        for (int k = 0; k < D; ++k) {
            const double low = box[k], high = box[D + k], centre = shared.centre[k], reach = shared.reach[k];
            if (COST == SQUARE) {
                // -scale |y - centre|^2 / 2 + the bound of move (y - image): largest at centre -+ reach, or at a border
                double largest = minus_infinity();
#pragma unroll
                for (int side = -1; side <= 1; side += 2) {
                    const double y = larger(low, -larger(-high, -(centre + side * reach))), move = y - centre;
                    const double length = magnitude(y - shared.image[k]);
                    largest = larger(largest, rise(p.scale, reach, length) - 0.5 * p.scale * move * move);
                }
                bound += largest;
            } else {
                const double step = p.scale * larger(larger(low - centre, centre - high) - reach, 0.0);
                far += COST == EUCLIDEAN ? step * step : step;
            }
        }
        return bound - (COST == EUCLIDEAN ? sqrt(far) : far);
    }

    // scale max_move (move length), or of move length - move^2 / 2 if `bent`, over |move| <= reach.
    template <typename N> __device__ __forceinline__ N rise(N scale, N reach, N length) const
    {
        if (!bent) return scale * reach * length;
        const N move = length < reach ? length : reach;
        return scale * move * (length - N(0.5) * move);
    }

    // The tiles that may matter to the rows, in ascending order. With `counted`, `bar` is about log2 of what one tile
    // may carry of any row, otherwise of one entry; all that are left out carry `left_out`, `budget` at most.
    struct Walk {
        Near& form;
        double left_out;
        const bool counted;
        int begin, end, group, tile;  // tiles; the first group, or tile, of those below
        unsigned long long groups_left, tiles_left;

        __device__ Walk(Near& form, Index begin, Index end, bool counted)
            : form(form), left_out(0), counted(counted), begin(begin / TILE), end((end + TILE - 1) / TILE),
              group(begin / TILE / GROUP - GROUP), tile(0), groups_left(0), tiles_left(0) {}

        __device__ __forceinline__ void set(double level, double bar, double budget)
        {
            __syncthreads();  // everybody has read what was here
            if (threadIdx.x == 0) { form.shared.level = level; form.shared.bar = bar; form.shared.budget = budget; }
            __syncthreads();
        }

        // Of GROUP tiles, or groups, those that stay. Those below the bar go if all of them fit into the budget, which
        // does not depend on the order of threads. A group counts as a whole, whatever lies between begin and end.
        __device__ __forceinline__ unsigned long long survivors(Index node, bool inside, double bits)
        {
            double share = minus_infinity(), most = form.shared.bar;
            if (inside && form.p.groups > 0) share = form.box_bound(node) + form.shared.level + (counted ? bits : 0);
            for (;;) {
                const bool out = inside && form.p.groups > 0 && share <= most;
                const double mass = lane_sum<32>(out ? exp2(share) : 0);
                const unsigned vote = __ballot_sync(0xffffffffu, inside && !out);
                __syncthreads();  // everybody has read what was here
                if (threadIdx.x % 32 == 0) {
                    form.shared.masses[threadIdx.x / 32] = mass;
                    form.shared.votes[threadIdx.x / 32] = vote;
                }
                __syncthreads();
                const double all = left_out + form.shared.masses[0] + form.shared.masses[1];
                if (all <= form.shared.budget) {
                    left_out = all;
                    return form.shared.votes[0] | (unsigned long long)form.shared.votes[1] << 32;
                }
                most = log2(form.shared.budget - left_out) - 7;  // GROUP of these are half of the rest
            }
        }

        __device__ __forceinline__ bool next(Index& column)
        {
            while (!tiles_left) {
                if (groups_left) {
                    tile = (group + __ffsll(groups_left) - 1) * GROUP;
                    groups_left &= groups_left - 1;
                    const int one = tile + threadIdx.x;
                    tiles_left = survivors(one, one >= begin && one < end, TILE_BITS);
                } else {
                    group += GROUP;
                    if (group * GROUP >= end) return false;
                    const int one = group + threadIdx.x;
                    groups_left = survivors(form.tiles() + one, one * GROUP < end, TILE_BITS + GROUP_BITS);
                }
            }
            column = Index(tile + __ffsll(tiles_left) - 1) * TILE;
            tiles_left &= tiles_left - 1;
            return true;
        }

        // Whether the tile that was filled matters, by the threads' upper bounds of its logits. A barrier.
        __device__ __forceinline__ bool keeps(T bound)
        {
            bound = lane_max<32>(bound);
            if (threadIdx.x % 32 == 0) form.shared.tops[threadIdx.x / 32] = bound;
            __syncthreads();
            const double top = larger(form.shared.tops[0], form.shared.tops[1]);
            const double share = top + form.shared.level + (counted ? TILE_BITS : 0);
            if (!(share <= form.shared.bar)) return true;
            const double all = left_out + exp2(share);
            if (!(all <= form.shared.budget)) return true;
            left_out = all;
            return false;
        }
    };

    // The column of the largest weight less the cost of the centre, if that is more than `best`.
    __device__ __forceinline__ void search(Index begin, Index end, Index stride, double& best)
    {
        double most = best;
        Index place = image;
#pragma unroll 2
        for (Index j = begin + threadIdx.x * stride; j < end; j += THREADS * stride) {
            double length = 0;
            for (int k = 0; k < D; ++k) {
                const double gap = p.y[j * D + k] - shared.centre[k];
                length += COST == CITYBLOCK ? magnitude(gap) : gap * gap;
            }
            const double cost = COST == SQUARE ? 0.5 * length : COST == EUCLIDEAN ? sqrt(length) : length;
            const double value = p.weight(j) - p.scale * cost;
            if (value > most) { most = value; place = j; }
        }
        block_best<THREADS>(shared.best, most, place);
        best = most; image = place;
    }

    // The block as one row, in its centre.
    __device__ __forceinline__ void contract()
    {
        const double* frame = p.x_extra + first / FRAME * (2 * D);
        const int axis = threadIdx.x;
        __syncthreads();  // everybody is done with the block before
        if (axis < D) {
            shared.centre[axis] = shared.image[axis] = frame[axis];
            shared.reach[axis] = 0;
        }
        if (threadIdx.x == 0) shared.reference = 0;
        __syncthreads();
    }

    // Where the plan sends that row, roughly, among a few columns: neighbours in order are neighbours in space.
    __device__ __forceinline__ double find_image()
    {
        double best = minus_infinity();
        const Index stride = 1 + p.m / SAMPLES;
        search(0, p.m, stride, best);
        search(larger(image - stride, Index(0)), smaller(image + stride, p.m), 1, best);
        return best;
    }

    // The same among many: in the tile that promises most, of the group that does, then in all tiles that promise
    // NEAR_BITS more than was found there: at a high temperature none.
    __device__ __forceinline__ double find_image_in_boxes()
    {
        double best = minus_infinity(), most = best;
        Index node = 0;
#pragma unroll 1
        for (Index group = threadIdx.x; group < p.groups; group += THREADS) {
            const double bound = box_bound(tiles() + group);
            if (bound > most) { most = bound; node = group; }
        }
        block_best<THREADS>(shared.best, most, node);
        node = node * GROUP + threadIdx.x;
        most = node < tiles() ? box_bound(node) : minus_infinity();
        block_best<THREADS>(shared.best, most, node);
        search(node * TILE, smaller(node * TILE + TILE, p.m), 1, best);
        Walk walk(*this, 0, p.m, false);
        for (Index begin;;) {
            walk.set(best > minus_infinity() ? -best - NEAR_BITS : -LOST, 0, -minus_infinity());
            if (!walk.next(begin)) return best;
            search(begin, smaller(begin + TILE, p.m), 1, best);
        }
    }

    __device__ __forceinline__ void open(double* rho)
    {
        contract();
        double best;
        if (p.groups == 0) {
            best = find_image();
        } else {
            const double* found = p.prepared + p.m + tiles() + p.groups + first / FRAME * 2;
            best = found[0];
            image = Index(found[1]);
        }
        const int axis = threadIdx.x;
        const bool none = !(best > minus_infinity());  // all weights are zero, or the costs overflow
        if (none) image = -1;
        __syncthreads();  // everybody has searched
        if (axis < D) {
            if (COST == SQUARE && !none) shared.image[axis] = double(p.y[image * D + axis]);
            shared.reach[axis] = p.x_extra[first / FRAME * (2 * D) + D + axis];
        }
        if (threadIdx.x == 0) shared.reference = none ? 0 : COST == SQUARE ? best : p.weight(image);
        __syncthreads();
#pragma unroll
        for (int r = 0; r < RI; ++r) {
            const Index i = smaller(first + row(r), p.n - 1);
            double constant = shared.reference;
#pragma unroll
            for (int k = 0; k < D; ++k) {
                const double move = p.x[i * D + k] - shared.centre[k];
                x[r][k] = T(__dmul_rn(p.scale, move));  // rounded as y is, so that their difference can be 0
                moved[r][k] = T(p.x[i * D + k] - shared.image[k]);
                if (COST == SQUARE) constant += p.scale * move * (shared.image[k] - shared.centre[k] - 0.5 * move);
            }
            rho[row(r)] = constant;
        }
    }

    // The columns of the tile of the image.
    __device__ __forceinline__ void nearest(Index& begin, Index& end) const
    {
        begin = image < 0 ? 0 : image / TILE * TILE;
        end = image < 0 ? 0 : smaller(begin + TILE, p.m);
    }

    // The highest offset of the rows, from which bounds of their weights start.
    //
    // A row at `move` from the centre has the weights 2^(offset + u + move (y - image)). The simple bound takes the
    // highest offset and the largest moves, which no one row need have: offsets may fall like -move^2 / 2, as they do
    // where the plan maps the block without contracting it. Then offset + move^2 / 2 is bounded instead, and the rest
    // is the bound of move (y - image) - move^2 / 2. Taken is the one that is lower for columns far out.
    __device__ __forceinline__ double raise(const T (&offset)[RI])
    {
        double top = LOST, curved = LOST, half = 0;
        Index none = 0;
#pragma unroll
        for (int r = 0; r < RI; ++r) {
            double square = 0;
#pragma unroll
            for (int k = 0; k < D; ++k) square += double(x[r][k]) * x[r][k];
            if (lost(offset[r])) continue;
            top = larger(top, double(offset[r]));
            curved = larger(curved, offset[r] + 0.5 * square / p.scale);
        }
        block_best<THREADS>(shared.best, top, none);
        if (COST != SQUARE) return top;
        block_best<THREADS>(shared.best, curved, none);
#pragma unroll
        for (int k = 0; k < D; ++k) half += 0.5 * p.scale * shared.reach[k] * shared.reach[k];
        bent = curved - half < top;
        return bent ? curved : top;
    }

    // -> an upper bound of the logits of this thread's columns, up to the level of the rows
    __device__ __forceinline__ T fill(Index begin)
    {
        T bound = T(minus_infinity());
        for (int t = threadIdx.x; t < TILE; t += THREADS) {
            const Index j = begin + t;
            double u = minus_infinity();
            T far = 0;
            if (j < p.m) u = p.weight(j) - shared.reference;
            for (int k = 0; k < D; ++k) {
                double y = j < p.m ? double(p.y[j * D + k]) : shared.image[k];
                if (COST == SQUARE) {
                    const double gap = y - shared.centre[k];
                    u -= 0.5 * p.scale * gap * gap;
                    y -= shared.image[k];
                    far += rise(T(p.scale), T(shared.reach[k]), magnitude(T(y)));
                } else {
                    y = __dmul_rn(p.scale, y - shared.centre[k]);
                    const T step = larger(magnitude(T(y)) - T(p.scale * shared.reach[k]), T(0));
                    far += COST == EUCLIDEAN ? step * step : step;
                }
                shared.column[k + 1][t] = T(y);
            }
            shared.column[0][t] = T(u);
            const T top = COST == SQUARE ? T(u) + far : T(u) - (COST == EUCLIDEAN ? root(far) : far);
            if (!(top <= bound)) bound = top == top ? top : T(-LOST);  // what overflows matters
        }
        return bound;
    }

    __device__ __forceinline__ void load(int step, Columns& c) const
    {
        take<SJ>(&shared.column[0][step * SJ], c.u);
#pragma unroll
        for (int k = 0; k < D; ++k) take<SJ>(&shared.column[k + 1][step * SJ], c.y[k]);
    }

    __device__ __forceinline__ void logits(const Columns& c, T (&z)[RI][SJ], T (&t)[RI][SJ]) const
    {
#pragma unroll
        for (int r = 0; r < RI; ++r)
#pragma unroll
            for (int s = 0; s < SJ; ++s) {
                t[r][s] = COST == SQUARE ? c.u[s] : T(0);
#pragma unroll
                for (int k = 0; k < D; ++k) accumulate<COST>(t[r][s], x[r][k], c.y[k][s]);
                if (COST == EUCLIDEAN) t[r][s] = root(t[r][s]);
                z[r][s] = COST == SQUARE ? t[r][s] : c.u[s] - t[r][s];
            }
    }

    __device__ __forceinline__ T slope(const Columns& c, int r, int s, int k, T t) const
    {
        return direction<COST>((COST == SQUARE ? moved[r][k] : x[r][k]) - c.y[k][s]) * stretch<COST>(t, T(1));
    }
};

// What is prepared for the columns of one sum: their weights in order, the largest of every tile, and of every group of
// them. One block for each group.
template <int THREADS, int TILE>
__global__ void __launch_bounds__(THREADS, 1)
prepare(const double* h, const Index* order, const Index m, double* out)
{
    __shared__ double of_tiles[GROUP];
    const Index first = Index(blockIdx.x) * GROUP, tiles = (m + TILE - 1) / TILE;
    for (int tile = threadIdx.x / 32; tile < GROUP; tile += THREADS / 32) {
        double top = minus_infinity();
        for (int t = threadIdx.x % 32; t < TILE; t += 32) {
            const Index j = (first + tile) * TILE + t;
            if (j >= m) continue;
            const double weight = LOG2_E * h[order[j]];
            out[j] = weight;
            top = larger(weight, top);
        }
        top = lane_max<32>(top);
        if (threadIdx.x % 32 == 0) {
            of_tiles[tile] = top;
            if (first + tile < tiles) out[m + first + tile] = top;
        }
    }
    __syncthreads();
    if (threadIdx.x >= 32) return;
    double top = minus_infinity();
    for (int tile = threadIdx.x; tile < GROUP; tile += 32) top = larger(of_tiles[tile], top);
    top = lane_max<32>(top);
    if (threadIdx.x == 0) out[m + tiles + blockIdx.x] = top;
}

// And for every frame of rows, after them: the weight of its image less the cost of its centre, and that column.
// prepared: where they go, as read.
template <class Form>
__global__ void __launch_bounds__(Form::THREADS, 1)
images(const typename Form::entry* x, const typename Form::entry* y, const double* x_extra, const double* y_extra,
       const Index* x_order, const Index* y_order, const double* h, double* prepared, const Index n, const Index m,
       const Index d, const Index down, const Index right, const Index groups, const double scale, const double)
{
    __shared__ typename Form::Shared shared;
    typedef typename Form::real T;
    const Source<T> source = {
        x, y, x_extra, y_extra, x_order, y_order, h, prepared, n, m, d, down, right, groups, scale};
    Form form(shared, source, Index(blockIdx.x) * (FRAME / Form::R));
    form.contract();
    const double best = form.find_image_in_boxes();
    double* out = prepared + m + form.tiles() + groups + Index(blockIdx.x) * 2;
    if (threadIdx.x == 0) { out[0] = best; out[1] = double(form.image); }
}
