# docker build -t alphaaction_d2 .
# docker run --rm --shm-size 4g -v "$PWD:/data" alphaaction_d2 demo /data/film.mp4 --output /data/results
FROM python:3.11-slim
# pycocotools and fvcore may have to be compiled; OpenCV's and PyAV's wheels bring what they need.
RUN apt-get update && apt-get install -y --no-install-recommends gcc g++ \
    && rm -rf /var/lib/apt/lists/*
# A CPU-only image is a third of the size: --build-arg TORCH_OPTIONS="--index-url ..." as pytorch.org says
ARG TORCH_OPTIONS=""
RUN pip install --no-cache-dir $TORCH_OPTIONS torch torchvision
WORKDIR /opt/alphaaction_d2
COPY . .
RUN pip install --no-cache-dir . && alphaaction setup
WORKDIR /data
ENTRYPOINT ["alphaaction"]
CMD ["--help"]
