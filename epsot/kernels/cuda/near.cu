// Points with d <= 3. The coordinates of a block are taken from its centre, those of the columns, for a square, from
// the image of the centre: where the plan sends it, roughly. The logits that matter are then small, and float32
// resolves them. All that is large cancels in float64, once for each column and block.
template <typename T, int COST, int D, int THREADS_, int RI_, int SJ_, int TILE_>
struct Near {
    typedef T real;
    static constexpr int THREADS = THREADS_, RI = RI_, SJ = SJ_, TILE = TILE_, LX = 1, R = THREADS * RI;
    static constexpr int STEPS = TILE / SJ, FOLD = 1, SLOPES = D, KIND = COST;
    static constexpr bool SKIPS = true;
    struct Shared {
        alignas(16) T column[D + 1][TILE];
        double centre[D], image[D], extent[D], reference;
        Best best;
    };
    struct Columns { T u[SJ], y[D][SJ]; };

    Shared& shared;
    const Source<T>& p;
    const Index first;
    T x[RI][D], moved[RI][D];

    __device__ Near(Shared& shared, const Source<T>& p, Index block) : shared(shared), p(p), first(block * R) {}
    __device__ __forceinline__ int row(int r) const { return r * THREADS + threadIdx.x; }
    __device__ __forceinline__ int column(int step, int s) const { return step * SJ + s; }

    __device__ __forceinline__ void open(double* rho)
    {
        const double* frame = p.x_extra + first / FRAME * (2 * D);
        double best = minus_infinity();
        Index image = -1;
        const Index stride = 1 + p.m / SAMPLES;
#pragma unroll 1
        for (Index j = threadIdx.x * stride; j < p.m; j += THREADS * stride) {
            double length = 0;
            for (int k = 0; k < D; ++k) { const double gap = p.y[j * D + k] - frame[k]; length += gap * gap; }
            const double value = p.weight(j) - (COST == SQUARE ? 0.5 * p.scale * length : p.scale * sqrt(length));
            if (value > best) { best = value; image = j; }
        }
        block_best<THREADS>(shared.best, best, image);
        const bool none = !(best > minus_infinity());  // all weights are zero, or the costs overflow
        const int axis = threadIdx.x;
        if (axis < D) {
            shared.centre[axis] = frame[axis];
            shared.image[axis] = COST == SQUARE && !none ? double(p.y[image * D + axis]) : frame[axis];
            shared.extent[axis] = p.scale * frame[D + axis];
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
                x[r][k] = T(p.scale * move);
                moved[r][k] = T(p.x[i * D + k] - shared.image[k]);
                if (COST == SQUARE) constant += p.scale * move * (shared.image[k] - shared.centre[k] - 0.5 * move);
            }
            rho[row(r)] = constant;
        }
    }

    __device__ __forceinline__ bool fill(Index begin, T top, T cut)
    {
        bool matters = false;
        for (int t = threadIdx.x; t < TILE; t += THREADS) {
            const Index j = begin + t;
            double u = minus_infinity();
            T bound = 0;
            if (j < p.m) u = p.weight(j) - shared.reference;
            for (int k = 0; k < D; ++k) {
                double y = j < p.m ? double(p.y[j * D + k]) : shared.image[k];
                if (COST == SQUARE) {
                    const double gap = y - shared.centre[k];
                    u -= 0.5 * p.scale * gap * gap;
                    y -= shared.image[k];
                    bound += T(shared.extent[k]) * magnitude(T(y));
                } else {
                    y = p.scale * (y - shared.centre[k]);
                    bound -= larger(magnitude(T(y)) - T(shared.extent[k]), T(0));
                }
                shared.column[k + 1][t] = T(y);
            }
            shared.column[0][t] = T(u);
            // sum_k gap_k bounds a distance by at most sqrt(D) too much
            if (COST == EUCLIDEAN) bound *= T(D == 1 ? 1 : D == 2 ? 0.70710678 : 0.57735027);
            matters |= T(u) + bound + top >= cut;
        }
        return matters;
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
