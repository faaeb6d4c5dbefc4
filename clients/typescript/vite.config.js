import { defineConfig } from "vite";

// The pages, each with its script, in pages/. `npx vite` serves them as they are edited.
export default defineConfig({
  base: "./",
  build: {
    target: "es2022",
    outDir: "pages",
    rolldownOptions: { input: ["example/index.html", "scenarios/index.html"] },
  },
});
