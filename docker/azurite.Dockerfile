# The object store of the tests, for trying Tidegate without an account. Not for real data.
FROM node:22-bookworm-slim
WORKDIR /store
COPY tests/azurite/package.json tests/azurite/package-lock.json tests/azurite/.npmrc tests/azurite/container.js ./
RUN npm ci --omit=dev --ignore-scripts && mkdir /data && chown node:node /data
USER node
VOLUME /data
EXPOSE 10000
ENTRYPOINT ["node"]
CMD ["node_modules/azurite/dist/src/blob/main.js", "--blobHost", "0.0.0.0", "--location", "/data", "--disableTelemetry", "--disableProductStyleUrl", "--skipApiVersionCheck", "--silent"]
