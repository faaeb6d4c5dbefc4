import { defineConfig } from "vite";

// Names without hashes: the binary includes each file by its name, and tells browsers by an
// ETag when one has changed.
export default defineConfig({
  build: {
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: false,
    reportCompressedSize: false,
    rolldownOptions: {
      output: {
        postBanner: "/*! licences: /assets/licences.txt */",
        entryFileNames: "assets/page.js",
        assetFileNames: "assets/page[extname]",
      },
    },
  },
  // `npx vite` in web/ serves the sources as they are edited, and passes calls on.
  server: { proxy: { "/game.v1.": "http://127.0.0.1:50051" } },
});
