// The second product of a wide sum, out[i, c] += w[i, j] v[j, c]: the exponentials of a tile go to shared memory once,
// and WIDTH columns of v at a time are summed there, M x N results in each thread. With slopes, v is y and what is
// summed is w times the gradient of the cost, from the differences x - y: no large numbers cancel.
template <class Form, bool SLOPE> struct Product {
    typedef typename Form::real T;
    static constexpr int N = 4, ACROSS = WIDTH / N, M = Form::R * ACROSS / Form::THREADS;
    static_assert(Form::R / M * ACROSS == Form::THREADS, "every thread has its results");

    T x[M][N];
    Sum<T> sums[M][N];

    __device__ __forceinline__ int row(int r) const { return threadIdx.x / ACROSS * M + r; }
    __device__ __forceinline__ int column(int k) const { return threadIdx.x % ACROSS * N + k; }

    __device__ __forceinline__ void open(const Form& form, Index chunk)
    {
#pragma unroll
        for (int r = 0; r < M; ++r)
#pragma unroll
            for (int k = 0; k < N; ++k) {
                sums[r][k].clear();
                const Index i = smaller(form.first + row(r), form.p.n - 1), c = chunk * WIDTH + column(k);
                if (SLOPE) x[r][k] = c < form.p.d ? form.p.x[i * form.p.d + c] : T(0);
            }
    }

    template <int TILE, int ROWS>
    __device__ __forceinline__ void add(const T (&exponentials)[TILE][ROWS], const T (&values)[TILE][WIDTH])
    {
#pragma unroll 2
        for (int j = 0; j < TILE; ++j) {
            T w[M], v[N];
            take<M>(&exponentials[j][row(0)], w);
            take<N>(&values[j][column(0)], v);
#pragma unroll
            for (int r = 0; r < M; ++r)
#pragma unroll
                for (int k = 0; k < N; ++k)
                    sums[r][k].add(w[r], SLOPE ? direction<Form::KIND>(x[r][k] - v[k]) : v[k]);
        }
    }

    __device__ __forceinline__ void fold()
    {
#pragma unroll
        for (int r = 0; r < M; ++r)
#pragma unroll
            for (int k = 0; k < N; ++k) sums[r][k].fold();
    }

    // After the sum of the exponentials, in the first place of a row.
    template <int R, int W> __device__ __forceinline__ void store(double (&total)[R][W])
    {
#pragma unroll
        for (int r = 0; r < M; ++r)
#pragma unroll
            for (int k = 0; k < N; ++k) {
                sums[r][k].fold();
                total[row(r)][1 + column(k)] = sums[r][k].total;
            }
    }
};

struct NoProduct {};
template <class Form, bool WIDE, bool SLOPE> struct ProductOf { typedef NoProduct type; };
template <class Form, bool SLOPE> struct ProductOf<Form, true, SLOPE> { typedef Product<Form, SLOPE> type; };
