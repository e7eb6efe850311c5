/* Pages from disk may start no worker: there the search runs in a hidden frame instead, which looks like one. */
if (location.protocol === "file:") {
  window.Worker = window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.append(frame)
      const inside = frame.contentWindow
      inside.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
      inside.importScripts = (...urls) =>
        urls.reduce((loaded, src) => loaded.then(() => this.load(inside.document, src)), Promise.resolve())
      this.inside = inside
      this.ready = this.load(inside.document, url)
    }

    load(page, src) {
      return new Promise((resolve, reject) =>
        page.head.append(Object.assign(page.createElement("script"), { src, onload: resolve, onerror: reject }))
      )
    }

    postMessage(data) {
      this.ready.then(() => this.inside.dispatchEvent(new MessageEvent("message", { data })))
    }

    set onmessage(listener) {
      this.addEventListener("message", listener)
    }
  }
}
